// Before any test: the WASM modules exist and are as new as their sources.
import { buildWasm } from "#scripts/build/wasm.ts";

export default function setup(): void {
  buildWasm();
}
