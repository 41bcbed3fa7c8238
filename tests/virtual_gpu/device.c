// SPDX-License-Identifier: Apache-2.0
// The virtual card itself: settings, models, address ranges, memory accounting, what is counted.
// Part of the fake libcudart. One mutex guards everything that changes.
#define _GNU_SOURCE
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "virtual_gpu.h"

#define MIB (UINT64_C(1) << 20)
#define MOST_DEVICES 16
#define SMALL_COPY 65536

// ---- models and settings

// Total: what cudaMemGetInfo shows, to two decimals of GiB; boards and drivers differ by tens of
// MiB.
#define GIB_HUNDREDTHS(x) ((uint64_t)(x)*1024 * MIB / 100)
static const vgpu_model models[] = {
    {"NVIDIA H100 80GB HBM3", 9, 0, 132, GIB_HUNDREDTHS(7919), 233472, 232448, 2048, 52428800,
     5120},
    {"NVIDIA H200", 9, 0, 132, GIB_HUNDREDTHS(13981), 233472, 232448, 2048, 62914560, 6016},
    {"NVIDIA A100-SXM4-80GB", 8, 0, 108, GIB_HUNDREDTHS(7915), 167936, 166912, 2048, 41943040,
     5120},
    {"NVIDIA A100-SXM4-40GB", 8, 0, 108, GIB_HUNDREDTHS(3949), 167936, 166912, 2048, 41943040,
     5120},
    {"NVIDIA L40S", 8, 9, 142, GIB_HUNDREDTHS(4440), 102400, 101376, 1536, 100663296, 384},
    {"NVIDIA L4", 8, 9, 58, GIB_HUNDREDTHS(2203), 102400, 101376, 1536, 50331648, 192},
    {"NVIDIA GeForce RTX 4090", 8, 9, 128, GIB_HUNDREDTHS(2364), 102400, 101376, 1536, 75497472,
     384},
    {"NVIDIA GeForce RTX 3090", 8, 6, 82, GIB_HUNDREDTHS(2368), 102400, 101376, 1536, 6291456, 384},
    {"Tesla T4", 7, 5, 40, GIB_HUNDREDTHS(1475), 65536, 65536, 1024, 4194304, 256},
};
static vgpu_settings settings;
static vgpu_model model;
static FILE* log_file;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static uint64_t used[MOST_DEVICES], peak_used[MOST_DEVICES];
static int event_lag;
static uint64_t event_epoch;
static uint64_t launches;
static __thread int device_of_thread;

static uint64_t parse_bytes(const char* text) {
  char* end;
  double value = strtod(text, &end);
  while (*end == ' ') end++;
  if (*end == 'G' || *end == 'g') value *= 1024.0 * MIB;
  if (*end == 'M' || *end == 'm') value *= MIB;
  if (*end == 'K' || *end == 'k') value *= 1024;
  return (uint64_t)value;
}
static const char* text_setting(const char* name) {
  const char* value = getenv(name);
  return value && *value ? value : NULL;
}
static int int_setting(const char* name, int otherwise) {
  const char* value = text_setting(name);
  return value ? atoi(value) : otherwise;
}
static uint64_t byte_setting(const char* name, uint64_t otherwise) {
  const char* value = text_setting(name);
  return value ? parse_bytes(value) : otherwise;
}
// "H100 80GB" matches a model when each of its words is in the model's name.
static int matches(const char* wanted, const char* name) {
  char words[128];
  snprintf(words, sizeof words, "%s", wanted);
  char* rest;
  for (char* word = strtok_r(words, " -_", &rest); word; word = strtok_r(NULL, " -_", &rest)) {
    if (!strcasestr(name, word)) return 0;
  }
  return 1;
}
static void read_settings(void) {
  settings.device = text_setting("VIRTUAL_GPU_DEVICE");
  model = models[0];
  if (settings.device) {
    const size_t count = sizeof models / sizeof *models;
    size_t i = 0;
    while (i < count && !matches(settings.device, models[i].name)) i++;
    if (i < count) {
      model = models[i];
    } else {
      fprintf(stderr, "virtual GPU: no model '%s', using %s\n", settings.device, model.name);
    }
  }
  settings.memory = byte_setting("VIRTUAL_GPU_MEMORY", model.total);
  settings.count = int_setting("VIRTUAL_GPU_COUNT", 1);
  settings.context = byte_setting("VIRTUAL_GPU_CONTEXT", 0);
  settings.event_lag = int_setting("VIRTUAL_GPU_EVENT_LAG", 0);
  settings.cudnn_workspace = byte_setting("VIRTUAL_GPU_CUDNN_WORKSPACE", 0);
  settings.byte_read_back = int_setting("VIRTUAL_GPU_BOOL", 0);
  settings.keep_small_copies = int_setting("VIRTUAL_GPU_KEEP", 0);
  settings.log = text_setting("VIRTUAL_GPU_LOG");
  settings.log_launches = int_setting("VIRTUAL_GPU_LOG_LAUNCHES", 0);
  if (settings.count > MOST_DEVICES) settings.count = MOST_DEVICES;
  const char* visible = getenv("CUDA_VISIBLE_DEVICES");  // hides cards; does not reorder them
  if (visible) {
    int count = *visible && strcmp(visible, "-1") != 0 ? 1 : 0;
    for (const char* c = visible; *c && count; c++) count += *c == ',';
    if (count < settings.count) settings.count = count;
  }
  model.total = settings.memory;
  event_lag = settings.event_lag;
  if (settings.log) log_file = strcmp(settings.log, "-") != 0 ? fopen(settings.log, "a") : stderr;
  for (int device = 0; device < settings.count; device++) {
    used[device] = peak_used[device] = settings.context;
  }
}
static void ready(void) { pthread_once(&once, read_settings); }

const vgpu_settings* vgpu_get_settings(void) {
  ready();
  return &settings;
}
const vgpu_model* vgpu_get_model(void) {
  ready();
  return &model;
}
int vgpu_device_count(void) {
  ready();
  return settings.count;
}
int vgpu_current_device(void) { return device_of_thread; }
int vgpu_set_device(int device) {
  ready();
  if (device < 0 || device >= settings.count) return 101;
  device_of_thread = device;
  return 0;
}

// ---- address ranges, a sorted array

typedef struct range {
  uintptr_t base;
  size_t size;
  int kind, device;
} range;
static range* ranges;
static size_t range_count, range_capacity;

// The first range with a base above `at`.
static size_t upper(uintptr_t at) {
  size_t low = 0, high = range_count;
  while (low < high) {
    const size_t middle = (low + high) / 2;
    if (ranges[middle].base > at) {
      high = middle;
    } else {
      low = middle + 1;
    }
  }
  return low;
}
static range* range_of(uintptr_t at) {
  const size_t i = upper(at);
  if (i == 0) return NULL;
  range* found = &ranges[i - 1];
  return at < found->base + found->size ? found : NULL;
}
static void add_range(range added) {
  pthread_mutex_lock(&mutex);
  if (range_count == range_capacity) {
    range_capacity = range_capacity ? 2 * range_capacity : 256;
    ranges = realloc(ranges, range_capacity * sizeof *ranges);
    if (!ranges) abort();
  }
  const size_t i = upper(added.base);
  memmove(ranges + i + 1, ranges + i, (range_count - i) * sizeof *ranges);
  ranges[i] = added;
  range_count++;
  pthread_mutex_unlock(&mutex);
}
// Removes the range that begins at `base`, if its kind is right; returns its size or 0.
static size_t remove_range(const void* base, int wants_host) {
  size_t size = 0;
  pthread_mutex_lock(&mutex);
  range* found = range_of((uintptr_t)base);
  if (found && found->base == (uintptr_t)base && (found->kind == VGPU_HOST_MEM) == wants_host) {
    size = found->size;
    const size_t i = (size_t)(found - ranges);
    memmove(found, found + 1, (range_count - i - 1) * sizeof *ranges);
    range_count--;
  }
  pthread_mutex_unlock(&mutex);
  return size;
}

void* vgpu_reserve(size_t bytes, size_t align, int device, int kind) {
  ready();
  if (align < VGPU_GRANULE) align = VGPU_GRANULE;
  const size_t size = (bytes + VGPU_GRANULE - 1) & ~(VGPU_GRANULE - 1);
  char* whole =
      mmap(NULL, size + align, settings.keep_small_copies ? PROT_READ | PROT_WRITE : PROT_NONE,
           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (whole == MAP_FAILED) return NULL;
  char* base = (char*)(((uintptr_t)whole + align - 1) & ~(uintptr_t)(align - 1));
  if (base > whole) munmap(whole, (size_t)(base - whole));
  const size_t behind = (size_t)((whole + size + align) - (base + size));
  if (behind) munmap(base + size, behind);
  add_range((range){(uintptr_t)base, size, kind, device});
  return base;
}
int vgpu_unreserve(void* base) {
  const size_t size = remove_range(base, 0);
  if (!size) return 1;
  munmap(base, size);
  return 0;
}
void vgpu_remember_host(void* pointer, size_t bytes, int device) {
  add_range((range){(uintptr_t)pointer, bytes ? bytes : 1, VGPU_HOST_MEM, device});
}
int vgpu_forget_host(void* pointer) { return remove_range(pointer, 1) == 0; }

int vgpu_find(const void* pointer, uintptr_t* base, size_t* size, int* device) {
  pthread_mutex_lock(&mutex);
  const range* found = range_of((uintptr_t)pointer);
  const int kind = found ? found->kind : VGPU_NONE;
  if (found && base) *base = found->base;
  if (found && size) *size = found->size;
  if (found && device) *device = found->device;
  pthread_mutex_unlock(&mutex);
  return kind;
}

// ---- memory of the card

int vgpu_charge(int device, int64_t bytes) {
  ready();
  pthread_mutex_lock(&mutex);
  const int full = bytes > 0 && used[device] + (uint64_t)bytes > model.total;
  if (!full) {
    used[device] += (uint64_t)bytes;
    if (used[device] > peak_used[device]) peak_used[device] = used[device];
  }
  pthread_mutex_unlock(&mutex);
  return full ? 2 : 0;
}
void vgpu_mem_info(int device, size_t* free_bytes, size_t* total) {
  ready();
  if (total) *total = model.total;
  if (free_bytes) *free_bytes = model.total > used[device] ? model.total - used[device] : 0;
}
void vgpu_set_total(uint64_t bytes) {
  ready();
  model.total = bytes;
}
uint64_t vgpu_used(int device) {
  ready();
  return used[device];
}
uint64_t vgpu_peak_used(int device) {
  ready();
  return peak_used[device];
}

static int on_card(const void* pointer) {
  const int kind = vgpu_find(pointer, NULL, NULL, NULL);
  return kind == VGPU_DEVICE_MEM || kind == VGPU_RESERVED;
}
void vgpu_copy(void* to, const void* from, size_t bytes) {
  if (!bytes) return;
  ready();
  const int to_card = on_card(to), from_card = on_card(from);
  const int kept = settings.keep_small_copies && bytes <= SMALL_COPY;
  if (!to_card && !from_card) {
    memmove(to, from, bytes);
  } else if (!(to_card && from_card) && kept) {
    memcpy(to, from, bytes);
  } else if (!to_card) {
    memset(to, bytes == 1 ? settings.byte_read_back : 0, bytes);
  }
}
void vgpu_fill(void* to, int value, size_t bytes) {
  ready();
  if (!on_card(to) || (settings.keep_small_copies && bytes <= SMALL_COPY)) memset(to, value, bytes);
}

void* vgpu_new_handle(void) {
  void* handle = calloc(1, 64);
  if (!handle) abort();
  return handle;
}

// ---- events: complete at once, or after some polls, or when something synchronises

void vgpu_set_event_lag(int polls) {
  ready();
  event_lag = polls;
}
int vgpu_event_lag(void) {
  ready();
  return event_lag;
}
void vgpu_complete_all_events(void) { __atomic_add_fetch(&event_epoch, 1, __ATOMIC_SEQ_CST); }
uint64_t vgpu_event_epoch(void) { return __atomic_load_n(&event_epoch, __ATOMIC_SEQ_CST); }

// ---- what is counted

typedef struct counts {
  const char* names[1024];
  uint64_t values[1024];
  size_t size;
} counts;
static counts unknown_questions, stubs_called;

// Names are literals of the fake libraries, so the address tells most of them apart at once.
static uint64_t count(counts* all, const char* name) {
  pthread_mutex_lock(&mutex);
  size_t i = 0;
  while (i < all->size && all->names[i] != name && strcmp(all->names[i], name) != 0) i++;
  uint64_t value = 0;
  if (i < sizeof all->names / sizeof *all->names) {
    if (i == all->size) all->names[all->size++] = name;
    value = ++all->values[i];
  }
  pthread_mutex_unlock(&mutex);
  return value;
}
static size_t list(counts* all, const char** names, uint64_t* values, size_t most) {
  pthread_mutex_lock(&mutex);
  for (size_t i = 0; i < all->size && i < most; i++) {
    names[i] = all->names[i];
    values[i] = all->values[i];
  }
  const size_t size = all->size;
  pthread_mutex_unlock(&mutex);
  return size;
}
void vgpu_unknown(const char* question) {
  count(&unknown_questions, question);
  vgpu_log("unknown: %s", question);
}
void vgpu_stub(const char* function) {
  if (count(&stubs_called, function) == 1) vgpu_log("stub: %s", function);
}
size_t vgpu_unknown_questions(const char** names, uint64_t* values, size_t most) {
  return list(&unknown_questions, names, values, most);
}
size_t vgpu_stubs_called(const char** names, uint64_t* values, size_t most) {
  return list(&stubs_called, names, values, most);
}
uint64_t vgpu_launches(void) { return __atomic_load_n(&launches, __ATOMIC_RELAXED); }
void vgpu_count_launch(void) { __atomic_add_fetch(&launches, 1, __ATOMIC_RELAXED); }

void vgpu_log(const char* format, ...) {
  ready();
  if (!log_file) return;
  va_list arguments;
  va_start(arguments, format);
  vfprintf(log_file, format, arguments);
  va_end(arguments);
  fputc('\n', log_file);
  fflush(log_file);
}
