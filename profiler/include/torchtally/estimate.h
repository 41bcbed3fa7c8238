// SPDX-License-Identifier: Apache-2.0
// The estimator: what theory says about the memory, the FLOPs and the scaling of a transformer.
// Plain values in, plain values out; no state, no Torch, no CUDA. Safe to call from any thread.
//
// Units: every byte and FLOP is an exact integer. One multiply-accumulate is 2 FLOPs. GB is 1e9
// bytes, GiB is 2^30 bytes. Texts that are string_views (titles, formulas, sources) live as long as
// the program. Errors: functions throw tally::Error, a std::runtime_error with one line that names
// the field at fault. C++17. Long because it is the whole public interface of the room.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace tally::estimate {

// FLOPs of a long training pass 2^64; 128 bits hold all that validate() lets through.
__extension__ typedef __int128 Integer;
std::string to_string(Integer value);
// "65e9", "65B", "1.4T", "7_000_000_000", "7,000" -> exact integer. Throws Error naming `what`.
Integer parse_count(const std::string& text, const std::string& what);

// ---- Models ------------------------------------------------------------------------------------

enum class Norm { kLayerNorm, kRmsNorm };
// kGeluNew: the tanh form written out in Python (GPT-2 in transformers), which keeps more.
enum class Mlp { kGelu, kGeluNew, kRelu, kGated };

// A parameter of a model of which only the shapes are known.
struct GivenTensor {
  // Adafactor's: elements / last dimension, and elements / the one before it; a vector: n and 0.
  int64_t rows = 0, columns = 0;
  Integer numel = 0;
  int64_t element_bytes = 0;  // of its own type, where --recipe and --dtype say nothing; 0: theirs
  bool trainable = true;
};

// A decoder-only transformer by its dimensions. The structure members default to a GPT-2 block.
struct ModelSpec {
  std::string name;
  std::string family = "gpt";  // gpt, llama, moe, palm, gopher, megatron, or a config's model_type
  std::string source;          // where the dimensions were published
  std::string note;            // what a reader must know about the count
  int64_t layers = 0, d_model = 0, heads = 0, kv_heads = 0, head_dim = 0, ffn = 0;
  int64_t vocab = 0, context = 0;
  int64_t experts = 0, top_k = 0;  // 0: dense
  int64_t positions = 0;           // rows of a learned position table
  int64_t embedding_width = 0;     // 0: d_model; else projected in and out (OPT-350M)
  bool tied = true;                // head and embedding are one tensor
  bool qkv_bias = true, out_bias = true, mlp_bias = true, norm_bias = true;
  bool fused_gate_up = false;   // one matrix for both halves of a gated MLP (Phi-3)
  int64_t rotary_dim = 0;       // of rotary positions; 0: head_dim where nothing else is used
  bool fused_qkv = true;        // one matrix for q, k and v
  bool parallel_block = false;  // attention and MLP read the same residual
  bool final_norm = true;
  bool final_norm_counted = true;   // Megatron's published formula leaves it out
  bool relative_positions = false;  // Transformer-XL projection and its two biases (Gopher)
  bool softmax_fp32 = false;        // attention upcasts its scores, as Llama's code does
  bool masks_scores = true;         // eager attention keeps a boolean causal mask per layer
  bool score_softcap = false, logit_softcap = false;  // Gemma 2: tanh keeps its output
  bool fp32_norm_scale = false;  // Gemma multiplies by its norm's scale in fp32
  int64_t norms = 2;             // per layer: 1 (PaLM), 2, or 4 (Gemma 2: before and after)
  Norm norm = Norm::kLayerNorm;
  Mlp mlp = Mlp::kGelu;
  bool qk_norm = false;  // an RMSNorm of head_dim on q and on k (Qwen 3)
  // The parameters of any other model, in place of dimensions: its state is known, nothing else.
  std::vector<GivenTensor> tensors;
  // Counts given instead of computed ones (--parameters); 0: computed from the dimensions.
  Integer given_parameters = 0, given_active_parameters = 0;
  // Counts as published, for comparison; 0: none.
  Integer published_parameters = 0, published_active_parameters = 0;
  double published_tolerance = 0;

  bool has_shape() const { return layers > 0; }
  int64_t q_width() const { return heads * head_dim; }
  int64_t kv_width() const { return kv_heads * head_dim; }
};

// All models of the data table, in its order.
const std::vector<ModelSpec>& model_presets();
// By name or alias ("llama-65b", "gpt2-xl", "Mixtral 8x7B"); an unknown name lists the nearest
// ones.
ModelSpec find_model(const std::string& name);
std::vector<std::string> nearest_models(const std::string& name, size_t count);
// The structure of a family with no dimensions: gpt, llama, moe, palm, gopher, megatron.
ModelSpec family_model(const std::string& family);
// A Hugging Face config.json; or a family and its dimensions under the names of the command line's
// flags, {"family": "gpt", "layers": 4, "d_model": 128, "heads": 4, "vocab": 256, "context": 128};
// or the shapes of any model's parameters, {"name": "net", "parameters": [{"shape": [64, 3, 7, 7],
// "element_bytes": 4, "trainable": true}]}, of which the last two and the name may be left out.
// `file` is named in errors.
ModelSpec model_from_config(std::string_view json, const std::string& file);
ModelSpec model_from_config_file(const std::string& path);
std::vector<std::string> config_model_types();
// Fills what follows from other fields (head_dim, kv_heads, ffn, positions) and checks that the
// dimensions fit each other. Errors name the field, after `context` ("config.json: ").
void complete(ModelSpec& model, const std::string& context = "");

enum class Part { kEmbedding, kBlock, kHead };
enum class Shard { kReplicated, kTensor, kKeyValue, kExpert };
// One kind of tensor: `copies` of rows x columns (columns 0: a vector) in the model's head or
// embedding, or in each block.
struct ParameterTensor {
  std::string_view name;
  std::string_view formula;
  int64_t rows = 0, columns = 0, copies = 1;
  Part part = Part::kBlock;
  Shard shard = Shard::kReplicated;
  bool linear = false;  // the weight of a Linear: quantised, adapted by LoRA, copied by autocast

  Integer numel() const { return Integer{rows} * (columns > 0 ? columns : 1); }
  Integer elements() const { return numel() * copies; }
};
std::vector<ParameterTensor> parameter_tensors(const ModelSpec& model);

struct ParameterCount {
  Integer total = 0, active = 0;  // active: what one token passes through (top_k experts)
  Integer embedding = 0;          // token and position tables, and an untied head
  Integer block = 0;              // one layer
  Integer computed = 0;           // from the dimensions, also where `total` was given
};
ParameterCount count_parameters(const ModelSpec& model);

// ---- Training ----------------------------------------------------------------------------------

enum class Dtype { kFp32, kTf32, kBf16, kFp16, kAmpBf16, kAmpFp16 };
enum class Attention { kEager, kSdpa, kFlash };
enum class Checkpoint { kNone, kSelective, kFull, kEvery, kSqrt };

struct TrainingConfig {
  int64_t batch = 1;       // sequences in one micro-batch of one data-parallel rank
  int64_t sequence = 0;    // tokens a sequence; 0: the model's context
  int64_t accumulate = 1;  // micro-batches in one step
  Dtype dtype = Dtype::kFp32;
  std::string optimizer = "adamw";  // a row of optimizers()
  std::string recipe = "auto";      // a row of recipes(); auto follows dtype
  std::string weights = "auto";     // number format of the weights (fp8, int8, nf4, ...)
  int64_t lora_rank = 16;
  bool lora_attention_only = false;  // q and v, as the LoRA paper; else every Linear of the blocks
  Attention attention = Attention::kEager;
  double dropout = 0;
  bool fused_norm = false;  // RMSNorm as one operator
  bool fused_mlp = false;   // SwiGLU that makes silu(gate) again in backward
  Checkpoint checkpoint = Checkpoint::kNone;
  int64_t checkpoint_every = 1;    // layers a segment, for kEvery
  bool keep_logits = false;        // the program still holds the logits during backward
  bool foreach_optimizer = false;  // Python's default on CUDA; LibTorch steps tensor by tensor
  bool cpu = false;                // CPU kernels: dropout keeps its noise in the input's dtype
  bool causal_half = false;        // count only the attention FLOPs below the diagonal
  int64_t dp = 1, zero = 0, tp = 1, cp = 1, pp = 1, ep = 1;
  int64_t interleave = 1;  // model chunks a pipeline stage (1: plain 1F1B)
  bool sequence_parallel = false;
  bool bucket_view = false;      // DDP with gradient_as_bucket_view
  std::string device;            // a row of devices(); empty: none
  Integer device_memory = 0;     // bytes of one device, in place of the row's
  int64_t devices = 0;           // cards for time; 0: dp*tp*cp*pp
  Integer tokens = 0;            // of the whole training; 0: none asked
  double tokens_per_second = 0;  // of all devices together; 0: unknown
  double assumed_mfu = 0.4;      // for the time where no tokens per second are given

  int64_t world() const { return dp * tp * cp * pp; }
};

// Groups of memory rows, in the order of the table and with the keys of the JSON.
enum class Group { kParameters, kGradients, kOptimizerState, kActivations, kLogits, kWorkspace };
inline constexpr size_t kGroupCount = 6;
std::string_view group_key(Group group);

struct Row {
  std::string_view key, title;
  Integer bytes = 0;
  std::string_view formula, source;
  Group group = Group::kParameters;
};

// A moment of the step at which the live bytes can peak.
struct Moment {
  std::string_view key, title;
  Integer bytes = 0;
  std::string_view formula;
};

struct MemoryEstimate {
  std::vector<Row> rows;  // of the worst rank; their sum is `total`
  std::array<Integer, kGroupCount> groups{};
  Integer total = 0;
  std::vector<Moment> moments;
  Integer peak = 0;        // the largest moment
  size_t peak_moment = 0;  // index into `moments`
  Integer rounded = 0;     // total as the CUDA caching allocator counts it (512 B blocks)
  Integer reserved = 0;    // its segments, were all rows alive at once
  Integer context = 0;     // CUDA context, outside the allocator
  std::vector<Integer> stage_totals;  // by pipeline stage
  size_t worst_stage = 0;             // whose rows these are: the largest total
  size_t peak_stage = 0;              // whose moments these are: the largest peak

  Integer group(Group g) const { return groups[static_cast<size_t>(g)]; }
};

// The activations of one layer (or of what surrounds the layers), tensor by tensor.
enum class Region { kReplicated, kTensorParallel };
struct ActivationTensor {
  std::string_view key, title;
  Integer bytes = 0;  // of one micro-batch on one context-parallel rank, before tensor parallelism
  std::string_view formula, source;
  Region region = Region::kReplicated;
  bool attention_core = false;         // dropped by selective checkpointing
  bool gone_before_attention = false;  // freed in backward before the attention core's turn
  bool block_input = false;            // the checkpoint itself, where a layer is checkpointed
};
std::vector<ActivationTensor> layer_activations(const ModelSpec& model,
                                                const TrainingConfig& config);
std::vector<ActivationTensor> head_activations(const ModelSpec& model,
                                               const TrainingConfig& config);
// Bytes of one layer on one rank, after tensor and sequence parallelism, before checkpointing.
Integer layer_activation_bytes(const ModelSpec& model, const TrainingConfig& config);
// Bytes at the loss: log-probabilities, their gradient, the logits' gradient, and kept logits.
Integer logits_bytes(const ModelSpec& model, const TrainingConfig& config);
// The part of them that the program itself holds, with keep_logits.
Integer held_logits_bytes(const ModelSpec& model, const TrainingConfig& config);

// Checks every field of `config` against `model`; errors name the flag as the command line has it.
void validate(const ModelSpec& model, const TrainingConfig& config);

// Model state of a number of parameters, unsharded; exact where `tensors` of the model are known.
struct StateBytes {
  Integer parameters = 0, gradients = 0, optimizer_state = 0;
};
StateBytes state_bytes(const ModelSpec& model, const TrainingConfig& config);

struct Recipe {
  std::string name;
  std::string title;
  double weight = 0, gradient = 0, master = 0, state = 0;  // bytes an element
  std::string source;
};
struct Optimizer {
  std::string name;
  double states = 0;       // tensors of state a parameter; 0.. for SGD
  double temporaries = 0;  // tensors of the largest parameter's size alive inside the step
  double flops = 0;        // a parameter
  std::string kind;        // plain, 8bit, adafactor
  std::string source;
};
const std::vector<Recipe>& recipes();
const std::vector<Optimizer>& optimizers();
const Recipe& find_recipe(const std::string& name);
const Optimizer& find_optimizer(const std::string& name);
// What "auto" stands for under a dtype.
std::string resolve_recipe(const TrainingConfig& config);

// ---- FLOPs -------------------------------------------------------------------------------------

struct OperatorRow {
  std::string_view key, title, formula;
  Integer forward = 0, backward = 0;                  // one step of the whole job
  Integer counter_forward = 0, counter_backward = 0;  // as torch.utils.flop_counter reports it
};
// One published way to count a step, and what it leaves out.
struct FlopMethod {
  std::string_view key, title, formula, leaves_out, source;
  Integer step = 0;  // forward and backward, of the same tokens
};
struct FlopEstimate {
  std::vector<OperatorRow> operators;
  Integer forward = 0, backward = 0, recompute = 0, optimizer = 0, step = 0;
  Integer six_nd = 0;
  Integer counter_forward = 0, counter_backward = 0;
  Integer tokens = 0;  // in one step: batch x sequence x accumulate x dp
  std::vector<FlopMethod> methods;
  std::vector<std::pair<std::string_view, Integer>> lecture_terms;  // of one forward pass
};

struct DeviceSpec {
  std::string name, architecture, source;
  Integer memory_bytes = 0;  // as the driver reports it where known, else the nominal GB
  bool memory_reported = false;
  double bandwidth = 0;                                    // B/s
  double fp32 = 0, tf32 = 0, bf16 = 0, fp16 = 0, fp8 = 0;  // dense FLOP/s; 0: not published
  double watts = 0;
  bool nvidia = false;

  double peak(Dtype dtype) const;  // of the arithmetic a dtype uses; 0: not published
};
const std::vector<DeviceSpec>& devices();
const DeviceSpec& find_device(const std::string& name);

struct DeviceEstimate {
  std::string name;
  Integer memory_bytes = 0;    // 0: no device given
  Integer needed = 0;          // for `total`, rounded up
  Integer needed_at_peak = 0;  // for the exact step peak
};
struct TimeEstimate {
  std::optional<double> seconds_per_step, days, pf_days, mfu, hfu;
  std::optional<double> tokens_per_second;
  bool from_assumed_mfu = false;
};

struct Estimate {
  ModelSpec model;
  TrainingConfig config;  // as used: sequence, recipe and weights resolved
  ParameterCount parameters;
  MemoryEstimate memory;
  FlopEstimate flops;
  DeviceEstimate device;
  TimeEstimate time;
  std::vector<std::string> assumptions;
  // Which of activations, logits, peak and flops are not in it, and why: "not applicable because
  // ...". Their numbers are 0, and the peak is that of the model state.
  std::vector<std::pair<std::string_view, std::string>> not_applicable;
};

MemoryEstimate estimate_memory(const ModelSpec& model, const TrainingConfig& config);
FlopEstimate estimate_flops(const ModelSpec& model, const TrainingConfig& config);
// Everything at once; what the command line prints.
Estimate estimate(const ModelSpec& model, const TrainingConfig& config);

// Published counts of FLOPs by their own symbols, for one forward or step; see docs/estimates.md.
double lecture_forward(double batch, double layers, double sequence, double width, double heads);
double kaplan_forward_per_token(double layers, double width, double context);
double chinchilla_forward(const ModelSpec& model, double sequence, bool embeddings, bool logits);
double palm_per_token(double parameters, double layers, double heads, double head_dim,
                      double sequence);
enum class Recompute { kNone, kSelective, kFull };
double megatron_step(double batch, double sequence, double layers, double width, double vocab,
                     Recompute recompute);
inline constexpr double kPfDay = 8.64e19;  // 1e15 FLOP/s for a day
double model_flops_utilisation(double tokens_per_second, double flops_per_token, double peak,
                               double count);
// k is 6 without recomputation, 8 with full recomputation.
double training_days(double parameters, double tokens, double count, double flops_per_second,
                     double k);

// The conventions of torch.utils.flop_counter, operator by operator.
Integer matmul_flops(Integer m, Integer k, Integer n);
Integer bmm_flops(Integer batch, Integer m, Integer k, Integer n);
Integer sdpa_forward_flops(Integer batch, Integer heads, Integer queries, Integer keys,
                           Integer head_dim, Integer value_dim);
Integer sdpa_backward_flops(Integer batch, Integer heads, Integer queries, Integer keys,
                            Integer head_dim, Integer value_dim);
Integer convolution_flops(Integer batch, Integer in_channels_per_group, Integer out_channels,
                          const std::vector<Integer>& kernel, const std::vector<Integer>& output);
Integer vector_sum_flops(Integer n);   // n
Integer dot_product_flops(Integer n);  // 2n - 1 exactly; the lecture rounds to 2n

// ---- Activation formulas as published -----------------------------------------------------------

// Korthikanti et al. Table 2: 16-bit with dropout, bytes a layer a tensor-parallel rank.
double korthikanti_layer(double sequence, double batch, double width, double heads, double tensor,
                         bool sequence_parallel, Recompute recompute);
double lecture_notes_activations(double layers, double batch, double sequence, double width,
                                 double heads);  // L b n (66 d + 9 heads n)
double every_output_activations(double layers, double batch, double sequence, double width,
                                double heads);  // 4 L b n (18 d + 2 heads n)
// Stages hold more than their own layers under interleaving: 1 + (p-1)/(p m).
double interleave_factor(double stages, double chunks);

// ---- Checkpointing ------------------------------------------------------------------------------

struct CheckpointPlan {
  std::string_view key, title;
  int64_t segments = 0;    // 0: not by segments
  Integer kept = 0;        // bytes alive through forward
  Integer recomputed = 0;  // bytes of the largest segment, made again in backward
  Integer extra_layer_forwards = 0;
  Integer extra_flops = 0;  // of one step
  std::string_view note;
};
// From "nothing" over every k layers and the square root to the lecture's O(1) / O(L^2) corner.
std::vector<CheckpointPlan> checkpoint_tradeoffs(const ModelSpec& model,
                                                 const TrainingConfig& config);
// Memory of S equal segments is S c + (L/S) A; smallest at S* = sqrt(L A / c).
double checkpoint_memory(double layers, double checkpoint, double layer, double segments);
double best_segments(double layers, double checkpoint, double layer);
Integer quadratic_forwards(Integer layers);                    // L (L+1) / 2
Integer revolve_steps(Integer slots, Integer recomputations);  // C(c + r, c)

// ---- The CUDA caching allocator -----------------------------------------------------------------

Integer allocator_round(Integer bytes);    // to 512 B
Integer allocator_segment(Integer bytes);  // what cudaMalloc is asked for
Integer cublas_workspace(bool hopper_or_newer);
Integer cuda_context();

// ---- Scaling laws
// --------------------------------------------------------------------------------

struct ScalingQuestion {
  // FLOPs, parameters, tokens, nats; what is not given is the optimum for what is.
  std::optional<double> compute, parameters, tokens, loss;
};
struct ScalingAnswer {
  std::string_view law, title, source, note;
  std::optional<double> compute, parameters, tokens, loss;
  std::optional<double> tokens_per_parameter() const;
};
// One answer a law; throws when the question has nothing or too much in it.
std::vector<ScalingAnswer> scaling_laws(const ScalingQuestion& question);
std::vector<std::string> scaling_law_names();
// L(N, D) of a law that predicts a loss ("hoffmann-3", "hoffmann-3-printed", "besiroglu", ...).
double predicted_loss(const std::string& law, double parameters, double tokens);
// The compute-optimal number of parameters for C FLOPs, and of tokens for N parameters.
double optimal_parameters(const std::string& law, double compute);
double optimal_tokens(const std::string& law, double parameters);
double kaplan_loss_of_parameters(double non_embedding_parameters);

// ---- Number formats
// ------------------------------------------------------------------------------

struct NumberFormat {
  std::string name, title;
  int bits = 0, sign = 0, exponent = 0, mantissa = 0, bias = 0;
  std::string kind;  // float, float-no-infinity, integer, table
  double largest = 0, smallest_normal = 0, smallest_subnormal = 0, epsilon = 0, lowest = 0;
  double exact_integers = 0;       // every integer up to this is representable
  double bytes_per_parameter = 0;  // with the constants of its quantisation
  std::string storage;             // how those constants come about
};
const std::vector<NumberFormat>& number_formats();
const NumberFormat& find_format(const std::string& name);
struct EncodedNumber {
  std::string sign, exponent, mantissa;  // bits, most significant first; integers: all in mantissa
  double value = 0;                      // decoded again
  std::string arithmetic;                // "(-1)^0 x 2^(123-127) x (1 + 5033165/2^23)"
};
// Round to nearest, ties to even; out of range saturates for integers and fp8-e4m3, else infinity.
EncodedNumber encode(const NumberFormat& format, double value);
// Bytes of `numel` weights in a format, constants included (whole blocks of 64 and 256).
Integer weight_bytes(const std::string& format, Integer rows, Integer columns);

// ---- The lecture
// ---------------------------------------------------------------------------------

struct LectureLine {
  std::string_view id, statement, printed, verdict, reason;
  std::string recomputed;
  double value = 0;          // of `recomputed`, in the unit of the statement
  double printed_value = 0;  // 0: no number
};
// Every number of the lecture "Deep Learning at Scale for the GPU poor", recomputed.
std::vector<LectureLine> lecture_audit();

}  // namespace tally::estimate
