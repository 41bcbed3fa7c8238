// SPDX-License-Identifier: Apache-2.0
// One colour a role, on light and on dark ground, in every output. The twelve groups of the page
// were searched together (neighbours in the stack and all pairs stay apart for every kind of colour
// vision); buffers, held outputs and the kinds of reserved memory take a lighter or darker tint of
// the group they stand beside. Hue belongs to roles; everything else is ink.
#pragma once

#include <array>
#include <cstdint>

#include "profiler/core/words.h"

namespace tally::reports {

struct RoleColor {
  uint32_t light = 0;  // 0xRRGGBB
  uint32_t dark = 0;
};

inline constexpr std::array<RoleColor, kRoleCount> kRoleColors{{
    {0x3a5be4, 0x61b9ff},  // parameter
    {0xb3c2fb, 0xbfe2ff},  // buffer: a tint of parameters
    {0x52106c, 0x984cb7},  // optimizer_state
    {0xd96603, 0xfeaa3e},  // gradient
    {0x18a47f, 0x268f64},  // activation
    {0xb0e5d5, 0xd0f3e5},  // recomputed_activation
    {0xad6e99, 0xae85a0},  // input
    {0xdfbfd4, 0xdcc3d3},  // held_output: a tint of inputs
    {0xf0d79b, 0xf0d698},  // temporary_forward
    {0x884c27, 0xa4623e},  // temporary_backward
    {0xd8c4fe, 0xe8e0fa},  // temporary_optimizer
    {0x41362f, 0x603e2e},  // workspace
    {0x2a6f7a, 0x4ba6b2},  // communication
    {0x7b858d, 0x8b929b},  // external
    {0x515960, 0xb7b8ba},  // unattributed, always hatched where a fill can be
    {0xc5cdd3, 0x474c55},  // rounding
    {0xa3aeb6, 0x5b616b},  // cached
    {0x6d7780, 0x757c86},  // outside_allocator
}};

constexpr RoleColor color(Role role) { return kRoleColors[static_cast<size_t>(role)]; }

}  // namespace tally::reports
