// SPDX-License-Identifier: Apache-2.0
import { expect, it } from 'vitest';
import { folded } from '../../src/flops';

it('layers are folded by their number', () => {
  expect(folded('h.3.mlp.c_fc')).toBe('h.*.mlp.c_fc');
  expect(folded('after h.11.mlp')).toBe('after h.*.mlp');
  expect(folded('layers.2')).toBe('layers.*');
  expect(folded('0.conv1')).toBe('*.conv1');
});
it('other names stay', () => {
  for (const name of ['', '0', 'after 2', 'lm_head', 'conv2d.weight', 'h2.x']) {
    expect(folded(name)).toBe(name);
  }
});
