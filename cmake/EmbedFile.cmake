# SPDX-License-Identifier: Apache-2.0
# Writes ${INPUT} as a C++ array: cmake -DINPUT= -DOUTPUT= -DSYMBOL= -P EmbedFile.cmake
# The assembler's .incbin keeps a file of hundreds of kilobytes off the C++ parser.
file(SIZE ${INPUT} size)
file(WRITE ${OUTPUT} "// Generated from ${INPUT}; do not edit.
#include <string_view>
__asm__(\".section .rodata\\n.global tally_embedded_${SYMBOL}\\n.hidden tally_embedded_${SYMBOL}\\n\"
        \"tally_embedded_${SYMBOL}:\\n.incbin \\\"${INPUT}\\\"\\n.byte 0\\n.text\\n\");
extern \"C\" const char tally_embedded_${SYMBOL}[];
namespace tally::embedded {
extern const std::string_view ${SYMBOL};
const std::string_view ${SYMBOL}{tally_embedded_${SYMBOL}, ${size}};
}  // namespace tally::embedded
")
