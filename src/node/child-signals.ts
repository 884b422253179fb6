// Signals that abort with one signal, and each by itself before: one listener on that one, however many there are.

export interface ChildSignal {
  readonly signal: AbortSignal;
  /** It is not needed any more. */
  end(): void;
}

export class ChildSignals {
  readonly #parent: AbortSignal;
  readonly #children = new Set<AbortController>();
  #isEnding = false;

  constructor(parent: AbortSignal) {
    this.#parent = parent;
  }

  child(): ChildSignal {
    const controller = new AbortController();
    if (this.#isEnding) controller.abort(this.#parent.reason);
    this.#children.add(controller);
    return { signal: controller.signal, end: () => this.#children.delete(controller) };
  }

  /** Aborts those there are and those that come. */
  abort(): void {
    this.#isEnding = true;
    for (const one of this.#children) one.abort(this.#parent.reason);
  }
}
