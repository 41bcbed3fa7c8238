// SPDX-License-Identifier: Apache-2.0
// Numbers and names as people read them. MiB and GiB are binary; FLOP counts are decimal.

export const KiB = 1024;
export const MiB = 1024 * KiB;
export const GiB = 1024 * MiB;
export const TiB = 1024 * GiB;

const MINUS = '\u2212';
export const NBSP = '\u00a0';

const formats = [0, 1, 2, 3].map(
  (digits) =>
    new Intl.NumberFormat('en-GB', {
      minimumFractionDigits: digits,
      maximumFractionDigits: digits,
    }),
);

/** A number with 0 to 3 digits behind the point; thousands by comma. */
export function fix(value: number, digits = 0): string {
  const text = formats[digits].format(Math.abs(value));
  return (value < 0 && /[1-9]/.test(text) ? MINUS : '') + text;
}

/** "230.1 MiB": the largest binary unit that is at least 1, once rounded. */
export function human(bytes: number): string {
  const size = Math.abs(bytes);
  if (size >= TiB - 0.005 * GiB) return fix(bytes / TiB, 2) + NBSP + 'TiB';
  if (size >= GiB - 0.05 * MiB) return fix(bytes / GiB, 2) + NBSP + 'GiB';
  if (size >= MiB - 0.05 * KiB) return fix(bytes / MiB, 1) + NBSP + 'MiB';
  if (size >= KiB) return fix(bytes / KiB, 1) + NBSP + 'KiB';
  return fix(bytes) + NBSP + 'B';
}

export const raw = (bytes: number) => fix(bytes) + NBSP + 'B';

const plus = (value: number, text: string) => (value > 0 ? '+' : '') + text;
export const signed = (bytes: number) => plus(bytes, human(bytes));

/** A share of 1; what is there never reads as 0.0 %. */
export function percent(share: number, digits = 1): string {
  const least = 10 ** -digits;
  if (share > 0 && share * 100 < least / 2) return `<${fix(least, digits)}${NBSP}%`;
  return fix(share * 100, digits) + NBSP + '%';
}
export function signedPercent(share: number, digits = 1): string {
  const least = 10 ** -digits;
  if (share !== 0 && Math.abs(share * 100) < least / 2) {
    return `${share < 0 ? '>' + MINUS : '<+'}${fix(least, digits)}${NBSP}%`;
  }
  return plus(share, fix(share * 100, digits) + NBSP + '%');
}

/** One unit for a whole column, so that its numbers can be compared by eye. */
export interface Unit {
  name: string;
  size: number;
  digits: number;
}
export function unitFor(largest: number): Unit {
  if (largest >= 10 * GiB) return { name: 'GiB', size: GiB, digits: 2 };
  if (largest >= MiB) return { name: 'MiB', size: MiB, digits: largest < 10 * MiB ? 2 : 1 };
  return { name: 'KiB', size: KiB, digits: 1 };
}
/** What is there never reads as 0.0. */
export function inUnit(bytes: number, unit: Unit): string {
  const least = 10 ** -unit.digits;
  if (bytes > 0 && bytes / unit.size < least / 2) return '<' + fix(least, unit.digits);
  return fix(bytes / unit.size, unit.digits);
}

const prefixes = ['', 'k', 'M', 'G', 'T', 'P', 'E'];
const decimal = (value: number, unit: string) => {
  let power = 0;
  let rest = Math.abs(value);
  while (rest >= 999.5 && power < prefixes.length - 1) {
    rest /= 1000;
    power++;
  }
  const digits = power === 0 || rest >= 99.5 ? 0 : rest >= 9.95 ? 1 : 2;
  return fix(Math.sign(value) * rest, digits) + NBSP + prefixes[power] + unit;
};
export const flop = (count: number) => decimal(count, 'FLOP');
export const flopRate = (rate: number) => decimal(rate, 'FLOP/s');

/** A duration in microseconds. */
export function duration(us: number): string {
  const size = Math.abs(us);
  if (size >= 60e6) return fix(us / 60e6, 1) + NBSP + 'min';
  if (size >= 1e6) return fix(us / 1e6, 2) + NBSP + 's';
  if (size >= 1e3) return fix(us / 1e3, size >= 1e5 ? 0 : size >= 1e4 ? 1 : 2) + NBSP + 'ms';
  return fix(us) + NBSP + 'µs';
}
/** A moment: milliseconds to the microsecond. */
export const moment = (us: number) => fix(us / 1e3, 3) + NBSP + 'ms';

export const capital = (text: string) => text.charAt(0).toUpperCase() + text.slice(1);

const hidden =
  /[\u0000-\u001f\u007f-\u009f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]/g;

/** Names come from the recorded program: characters that would steer the text are shown instead. */
export const clean = (name: string) =>
  name.replace(
    hidden,
    (c) => '\u27e8U+' + c.charCodeAt(0).toString(16).toUpperCase().padStart(4, '0') + '\u27e9',
  );
