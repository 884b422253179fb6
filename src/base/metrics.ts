// Counters, gauges and histograms in Prometheus text format. Metrics are declared where they are counted; the registry
// is passed in. Upstream names where Kubernetes has them, else mote_<folder>_<what>_<unit> with base units.
// Labels are bounded by `maxSeries`: a label that takes its values from requests must not grow memory without end.
import { assert } from "./assert.ts";

export type Labels = Readonly<Record<string, string>>;

export interface Counter {
  add(value?: number, labels?: Labels): void;
}
export interface Gauge {
  set(value: number, labels?: Labels): void;
}
export interface Histogram {
  observe(value: number, labels?: Labels): void;
}

const maxSeries = 2000;

interface Family {
  readonly name: string;
  readonly help: string;
  readonly type: "counter" | "gauge" | "histogram";
  readonly buckets: readonly number[];
  readonly series: Map<string, number[]>;
  readonly collect: (() => number) | undefined;
}

export class Metrics {
  readonly #families = new Map<string, Family>();
  readonly #collectors: (() => void)[] = [];

  counter(name: string, help: string): Counter {
    const family = this.#family(name, help, "counter", []);
    return {
      add: (value = 1, labels) =>
        bump(family, labels, (s) => {
          s[0] = (s[0] ?? 0) + value;
        }),
    };
  }

  gauge(name: string, help: string): Gauge {
    const family = this.#family(name, help, "gauge", []);
    return {
      set: (value, labels) =>
        bump(family, labels, (s) => {
          s[0] = value;
        }),
    };
  }

  /** A gauge that is read when asked for. */
  gaugeOf(name: string, help: string, collect: () => number): void {
    this.#family(name, help, "gauge", [], collect);
  }

  /** Called when somebody asks, before anything is shown: for what is cheaper to count than to tell of each time. */
  beforeRender(collect: () => void): void {
    this.#collectors.push(collect);
  }

  histogram(name: string, help: string, buckets: readonly number[]): Histogram {
    const family = this.#family(name, help, "histogram", buckets);
    return {
      observe: (value, labels) =>
        bump(family, labels, (s) => {
          // Layout: one cell per bucket, then +Inf count, then sum.
          while (s.length < buckets.length + 2) s.push(0);
          for (let i = 0; i < buckets.length; i++) if (value <= buckets[i]!) s[i]!++;
          s[buckets.length]!++;
          s[buckets.length + 1]! += value;
        }),
    };
  }

  /** Prometheus text exposition format 0.0.4. */
  render(): string {
    for (const collect of this.#collectors) collect();
    let out = "";
    for (const f of this.#families.values()) {
      out += `# HELP ${f.name} ${f.help}\n# TYPE ${f.name} ${f.type}\n`;
      if (f.collect) out += `${f.name} ${f.collect()}\n`;
      for (const [labels, s] of f.series) {
        if (f.type !== "histogram") {
          out += `${f.name}${labels && `{${labels}}`} ${s[0] ?? 0}\n`;
          continue;
        }
        const sep = labels ? `${labels},` : "";
        f.buckets.forEach((bound, i) => {
          out += `${f.name}_bucket{${sep}le="${bound}"} ${s[i]}\n`;
        });
        out += `${f.name}_bucket{${sep}le="+Inf"} ${s[f.buckets.length]}\n`;
        out += `${f.name}_sum${labels && `{${labels}}`} ${s[f.buckets.length + 1]}\n`;
        out += `${f.name}_count${labels && `{${labels}}`} ${s[f.buckets.length]}\n`;
      }
    }
    return out;
  }

  #family(
    name: string,
    help: string,
    type: Family["type"],
    buckets: readonly number[],
    collect?: () => number,
  ): Family {
    const old = this.#families.get(name);
    if (old) {
      assert(old.type === type, `metric ${name} declared twice with different types`);
      return old;
    }
    const family: Family = { name, help, type, buckets, series: new Map(), collect };
    this.#families.set(name, family);
    return family;
  }
}

function bump(family: Family, labels: Labels | undefined, change: (series: number[]) => void): void {
  let key = "";
  for (const name in labels) key += `${key === "" ? "" : ","}${name}=${JSON.stringify(labels[name])}`;
  let series = family.series.get(key);
  if (!series) {
    if (family.series.size >= maxSeries) return;
    series = [];
    family.series.set(key, series);
  }
  change(series);
}
