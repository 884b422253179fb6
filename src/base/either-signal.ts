// One signal out of several, for as long as a piece of work lasts. What it hangs on signals that live longer than the work is
// taken off again: AbortSignal.any of Node 20 leaves some 60 bytes on each of its sources for every call, for as long as that
// source lives, which on a node that serves requests for years is for ever.

/** What `work` resolves with; its signal aborts with the first of `signals` that does, for the same reason. */
export async function withEither<T>(
  signals: readonly AbortSignal[],
  work: (either: AbortSignal) => Promise<T>,
): Promise<T> {
  const over = new AbortController();
  const removals = signals.map((signal) => {
    const stop = () => over.abort(signal.reason);
    if (signal.aborted) stop();
    else signal.addEventListener("abort", stop, { once: true });
    return () => signal.removeEventListener("abort", stop);
  });
  try {
    return await work(over.signal);
  } finally {
    for (const remove of removals) remove();
  }
}
