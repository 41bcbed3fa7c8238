// SPDX-License-Identifier: Apache-2.0
// What every section uses: theme, swatches, names, a section's frame, measured width.
import { createContext, options, type ComponentChildren, type RefObject } from 'preact';
import { useContext, useEffect, useLayoutEffect, useRef, useState } from 'preact/hooks';
import type { Run } from './data/run';
import { clean } from './format';

export type Theme = 'light' | 'dark';

export interface Page {
  run: Run;
  theme: Theme;
  printing: boolean;
}
export const PageContext = createContext<Page | null>(null);
export const usePage = () => useContext(PageContext)!;

/** Between the browser's "before print" and "after print", drawn at once: the paper does not wait. */
export function usePrinting(): boolean {
  const [printing, setPrinting] = useState(false);
  useEffect(() => {
    const set = (now: boolean) => () => {
      const before = options.debounceRendering;
      options.debounceRendering = (render) => render();
      setPrinting(now);
      options.debounceRendering = before;
    };
    const [begin, end] = [set(true), set(false)];
    addEventListener('beforeprint', begin);
    addEventListener('afterprint', end);
    return () => {
      removeEventListener('beforeprint', begin);
      removeEventListener('afterprint', end);
    };
  }, []);
  return printing;
}

const PAPER = 690; // CSS pixels that A4 and Letter have between their margins

/** The system's theme until the reader chooses one; paper is light. */
export function useTheme(run: Run, printing: boolean): [Theme, (theme: Theme) => void] {
  const query = matchMedia('(prefers-color-scheme: dark)');
  const [theme, setTheme] = useState<Theme>(query.matches ? 'dark' : 'light');
  useEffect(() => {
    const follow = () => setTheme(query.matches ? 'dark' : 'light');
    query.addEventListener('change', follow);
    return () => query.removeEventListener('change', follow);
  }, []);
  const drawn = printing ? 'light' : theme;
  applyTheme(run, drawn);
  return [drawn, setTheme];
}

let applied = '';
/** At once, not in an effect: canvases read the colours while they draw. */
function applyTheme(run: Run, theme: Theme) {
  if (applied === theme) return;
  applied = theme;
  const root = document.documentElement;
  root.dataset.theme = theme;
  run.meta.roles.forEach((role, i) => root.style.setProperty(`--role${i}`, role[theme]));
}

export function useWidth<T extends HTMLElement>(): [RefObject<T | null>, number] {
  const { printing } = usePage();
  const box = useRef<T>(null);
  const [width, setWidth] = useState(0);
  useLayoutEffect(() => {
    if (!box.current) return; // nothing was drawn
    const observer = new ResizeObserver(([entry]) => setWidth(Math.floor(entry.contentRect.width)));
    observer.observe(box.current);
    setWidth(box.current.clientWidth);
    return () => observer.disconnect();
  }, []);
  return [box, printing ? Math.min(width, PAPER) : width];
}

function luminance(hex: string): number {
  const [r, g, b] = [1, 3, 5].map((i) => {
    const c = parseInt(hex.slice(i, i + 2), 16) / 255;
    return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}
/** Black or white, whichever reads better on the fill. */
export function inkOn(fill: string): string {
  const light = luminance(fill);
  return 1.05 / (light + 0.05) >= (light + 0.05) / 0.055 ? '#fff' : '#0b0d0f';
}

export const fillStyle = (role: number) => ({
  background: `var(--role${role})`,
  '--fill': `var(--role${role})`,
});
/** Unattributed bytes are hatched wherever a fill can be. */
export function useHatch(): (role: number) => string {
  const { run } = usePage();
  return (role) => (run.meta.roles[role].key === 'unattributed' ? ' hatch' : '');
}
export function Swatch({ role }: { role: number }) {
  const hatch = useHatch();
  return <i class={'swatch' + hatch(role)} style={fillStyle(role)} aria-hidden="true" />;
}

const INFERRED = 'after ';
/**
 * A module's name. One that was inferred ("after h.0.mlp") is dimmed and says so; one that ends in a
 * number stands with its type, for "0" alone tells nobody what it is.
 */
export function ModuleName({ name, none = 'no module' }: { name: string; none?: string }) {
  const { run } = usePage();
  if (name === '') return <span class="dimmed">{none}</span>;
  if (!name.startsWith(INFERRED)) {
    const type = /(^|\.)\d+$/.test(name) ? run.moduleType(name) : '';
    return (
      <code>
        <bdi>{clean(name)}</bdi>
        {type !== '' && <span class="dimmed"> {clean(type)}</span>}
      </code>
    );
  }
  const title = 'inferred: the last known module when this was made';
  return (
    <code class="dimmed" title={title}>
      <em>after</em> <bdi>{clean(name.slice(INFERRED.length))}</bdi>
    </code>
  );
}
export const Name = ({ text }: { text: string }) => (
  <code>
    <bdi>{clean(text)}</bdi>
  </code>
);

export function Section(props: {
  id: string;
  title: string;
  take: ComponentChildren;
  children: ComponentChildren;
}) {
  return (
    <section id={props.id} aria-labelledby={`${props.id}-title`}>
      <header class="head">
        <h2 id={`${props.id}-title`}>{props.title}</h2>
        <p>{props.take}</p>
      </header>
      {props.children}
    </section>
  );
}

/** Buttons of which one is pressed. */
export function Choice<T extends string | number>(props: {
  label: string;
  options: [value: T, text: string][];
  value: T;
  onChange: (value: T) => void;
}) {
  return (
    <div class="buttons choice" role="group" aria-label={props.label}>
      {props.options.map(([value, text]) => (
        <button
          key={value}
          aria-pressed={props.value === value}
          onClick={() => props.onChange(value)}
        >
          {text}
        </button>
      ))}
    </div>
  );
}
