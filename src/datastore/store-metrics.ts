// What a store says of itself to whoever measures (docs/metrics.md): read when asked, never counted along.
import type { Metrics } from "#base/metrics.ts";
import type { Engine } from "./engine/engine.ts";

export function reportStore(metrics: Metrics, engine: () => Engine, durable: () => number): void {
  metrics.gaugeOf("mote_datastore_keys", "Keys in the datastore.", () => engine().keyCount);
  metrics.gaugeOf("mote_datastore_held_bytes", "Bytes of keys, values and index in memory.", () => engine().heldBytes);
  metrics.gaugeOf(
    "mote_datastore_history_bytes",
    "Bytes of superseded revisions in memory.",
    () => engine().historyBytes,
  );
  metrics.gaugeOf(
    "mote_datastore_memory_bytes",
    "Memory of the index and of values, as taken from the system.",
    () => engine().memoryBytes,
  );
  metrics.gaugeOf("mote_datastore_warm_bytes", "Values in memory.", () => engine().warmBytes);
  metrics.gaugeOf(
    "mote_datastore_cold_read_bytes",
    "Values read from the log since the start, because they were not in memory.",
    () => engine().coldBytesRead,
  );
  metrics.gaugeOf("mote_datastore_revision", "Newest durable revision.", () => durable());
}
