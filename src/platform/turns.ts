// Yielding to the event loop.

/** Resolves after pending input and output had their turn. For long work that is cut into slices. */
export function nextTurn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}
