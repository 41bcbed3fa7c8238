// SPDX-License-Identifier: Apache-2.0
import { defineConfig } from 'vitest/config';

// Patience for a machine that does much else.
export default defineConfig({
  test: { include: ['test/unit/*.test.ts'], environment: 'node', testTimeout: 60_000 },
});
