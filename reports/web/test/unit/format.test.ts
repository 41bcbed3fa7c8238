// SPDX-License-Identifier: Apache-2.0
import { describe, expect, it } from 'vitest';
import * as format from '../../src/format';

const NB = '\u00a0';

describe('bytes', () => {
  it('take the largest unit that is at least 1', () => {
    expect(format.human(0)).toBe(`0${NB}B`);
    expect(format.human(2 ** 20 - 1)).toBe(`1.0${NB}MiB`);
    expect(format.human(2 ** 30 - 1)).toBe(`1.00${NB}GiB`);
    expect(format.human(2 ** 40 - 1)).toBe(`1.00${NB}TiB`);
    expect(format.human(1023)).toBe(`1,023${NB}B`);
    expect(format.human(1536)).toBe(`1.5${NB}KiB`);
    expect(format.human(7811968000)).toBe(`7.28${NB}GiB`);
    expect(format.human(-592)).toBe(`\u2212592${NB}B`);
    expect(format.human(3 * 2 ** 40)).toBe(`3.00${NB}TiB`);
  });
  it('say their sign', () => {
    expect(format.signed(0)).toBe(`0${NB}B`);
    expect(format.signed(2048)).toBe(`+2.0${NB}KiB`);
    expect(format.signed(-2048)).toBe(`\u22122.0${NB}KiB`);
  });
  it('share one unit in a column', () => {
    const unit = format.unitFor(7811968000);
    expect(unit.name).toBe('MiB');
    expect(format.inUnit(7811968000, unit)).toBe('7,450.1');
    expect(format.inUnit(4, unit)).toBe('<0.1');
    expect(format.inUnit(0, unit)).toBe('0.0');
    expect(format.unitFor(40 * 2 ** 30).name).toBe('GiB');
    expect(format.unitFor(2000).name).toBe('KiB');
  });
});

describe('shares', () => {
  it('never round something to nothing', () => {
    expect(format.percent(0)).toBe(`0.0${NB}%`);
    expect(format.percent(0.0001)).toBe(`<0.1${NB}%`);
    expect(format.percent(0.5, 0)).toBe(`50${NB}%`);
    expect(format.signedPercent(0.011)).toBe(`+1.1${NB}%`);
    expect(format.signedPercent(-0.5)).toBe(`\u221250.0${NB}%`);
    expect(format.signedPercent(0.00001)).toBe(`<+0.1${NB}%`);
  });
});

describe('FLOPs and time', () => {
  it('keep three significant digits', () => {
    expect(format.flop(0)).toBe(`0${NB}FLOP`);
    expect(format.flop(1.234e12)).toBe(`1.23${NB}TFLOP`);
    expect(format.flop(99.96e9)).toBe(`100${NB}GFLOP`);
    expect(format.flop(999.9e9)).toBe(`1.00${NB}TFLOP`);
  });
  it('choose the unit of a duration', () => {
    expect(format.duration(250)).toBe(`250${NB}µs`);
    expect(format.duration(12_345)).toBe(`12.3${NB}ms`);
    expect(format.duration(1_234_567)).toBe(`1.23${NB}s`);
    expect(format.moment(4218.4)).toBe(`4.218${NB}ms`);
  });
});

describe('names', () => {
  it('show bidi and control characters instead of obeying them', () => {
    expect(format.clean('a\u202eb\u0000')).toBe('a⟨U+202E⟩b⟨U+0000⟩');
    expect(format.clean('h.0.attn')).toBe('h.0.attn');
    expect(format.clean('</script>')).toBe('</script>');
  });
});
