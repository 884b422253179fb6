// A priority queue whose entries can be taken out by key: a binary heap that skips what was taken out, and is packed when
// half of it is such. Taking the first of 10,000 is a dozen comparisons. Upstream counterpart: backend/heap.

interface Entry<T> {
  readonly value: T;
  isGone: boolean;
}

export class KeyedHeap<T> {
  readonly #isBefore: (a: T, b: T) => boolean;
  readonly #byKey = new Map<string, Entry<T>>();
  #heap: Entry<T>[] = [];

  constructor(isBefore: (a: T, b: T) => boolean) {
    this.#isBefore = isBefore;
  }

  get size(): number {
    return this.#byKey.size;
  }
  get(key: string): T | undefined {
    return this.#byKey.get(key)?.value;
  }
  values(): T[] {
    return [...this.#byKey.values()].map(({ value }) => value);
  }

  /** Replaces what has the key. */
  set(key: string, value: T): void {
    this.delete(key);
    const entry = { value, isGone: false };
    this.#byKey.set(key, entry);
    this.#heap.push(entry);
    this.#up(this.#heap.length - 1);
  }

  delete(key: string): boolean {
    const entry = this.#byKey.get(key);
    if (!entry) return false;
    entry.isGone = true;
    this.#byKey.delete(key);
    if (this.#heap.length > 64 && this.#heap.length > 2 * this.#byKey.size) this.#pack();
    return true;
  }

  first(): T | undefined {
    while (this.#heap[0]?.isGone) this.#shift();
    return this.#heap[0]?.value;
  }

  #shift(): void {
    const last = this.#heap.pop();
    if (last === undefined || this.#heap.length === 0) return;
    this.#heap[0] = last;
    this.#down(0);
  }

  #pack(): void {
    this.#heap = this.#heap.filter((entry) => !entry.isGone);
    for (let i = (this.#heap.length >> 1) - 1; i >= 0; i--) this.#down(i);
  }

  #up(start: number): void {
    const heap = this.#heap;
    let at = start;
    while (at > 0) {
      const parent = (at - 1) >> 1;
      if (!this.#isBefore(heap[at]!.value, heap[parent]!.value)) return;
      [heap[at], heap[parent]] = [heap[parent]!, heap[at]!];
      at = parent;
    }
  }

  #down(start: number): void {
    const heap = this.#heap;
    let at = start;
    for (;;) {
      const left = 2 * at + 1;
      if (left >= heap.length) return;
      const right = left + 1;
      const child = right < heap.length && this.#isBefore(heap[right]!.value, heap[left]!.value) ? right : left;
      if (!this.#isBefore(heap[child]!.value, heap[at]!.value)) return;
      [heap[at], heap[child]] = [heap[child]!, heap[at]!];
      at = child;
    }
  }
}
