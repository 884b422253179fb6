// SQLite as a WASM module, without the JavaScript that ships with it: the package's own glue brings 430 KB for a
// virtual file system in memory that we do not use, and its Node entry is broken in the pinned build. What the module
// needs is little: memory, a way to grow it, and refusals for every system call, because all files go through our VFS.
//
// JavaScript functions become C function pointers by re-exporting them from a tiny generated module: a table takes
// only exported WASM functions.

/** WASM value types as they stand in a type section. */
const valueTypes = { i: 0x7f, j: 0x7e, d: 0x7c } as const;

/** One letter per value: result, then parameters; i = i32 or pointer, j = i64 (a bigint), d = f64. */
export type Signature = string;

// biome-ignore lint/suspicious/noExplicitAny: the exports of a C program have as many shapes as there are functions
export type SqliteExports = Record<string, any>;

export interface SqliteModule {
  readonly exports: SqliteExports;
  readonly memory: WebAssembly.Memory;
  /** A view of the whole memory; ask again after every call into the module, which may have grown it. */
  bytes(): Buffer;
  view(): DataView;
  /** A function pointer to `callback`, for ever. */
  pointerTo(callback: (...args: never[]) => number, signature: Signature): number;
  /** Copies a string with its closing zero to memory of the module; to be freed with `sqlite3_free`. */
  allocString(text: string): number;
  stringAt(address: number): string;
}

export interface SqliteModuleOptions {
  /** sqlite3.wasm, compiled. */
  readonly module: WebAssembly.Module;
  readonly maximumBytes: number;
  /** Milliseconds since 1970, for SQLite's own date functions only. */
  readonly now: () => number;
}

const pageBytes = 65536;
const initialPages = 128;
const enosys = -52;
const wasiNosys = 52;

export function instantiateSqlite(options: SqliteModuleOptions): SqliteModule {
  const maximum = Math.max(initialPages, Math.floor(options.maximumBytes / pageBytes));
  const memory = new WebAssembly.Memory({ initial: initialPages, maximum });
  let buffer = memory.buffer;
  let bytes = Buffer.from(buffer);
  let view = new DataView(buffer);
  const refresh = () => {
    if (memory.buffer === buffer) return;
    buffer = memory.buffer;
    bytes = Buffer.from(buffer);
    view = new DataView(buffer);
  };

  const provided: Record<string, WebAssembly.ImportValue> = {
    memory,
    emscripten_date_now: () => options.now(),
    emscripten_get_now: () => options.now(),
    emscripten_get_heap_max: () => maximum * pageBytes,
    emscripten_resize_heap(size: number) {
      const pages = Math.ceil((size >>> 0) / pageBytes);
      if (pages > maximum) return 0;
      try {
        memory.grow(Math.max(0, pages - memory.buffer.byteLength / pageBytes));
        return 1;
      } catch {
        // The address space is full: SQLite answers SQLITE_NOMEM.
        return 0;
      }
    },
    environ_sizes_get(count: number, size: number) {
      refresh();
      view.setUint32(count, 0, true);
      view.setUint32(size, 0, true);
      return 0;
    },
    environ_get: () => 0,
  };
  const { module } = options;
  const imports: WebAssembly.Imports = {};
  for (const { module: from, name } of WebAssembly.Module.imports(module)) {
    imports[from] ??= {};
    const group = imports[from];
    group[name] = provided[name] ?? (from === "wasi_snapshot_preview1" ? () => wasiNosys : () => enosys);
  }
  const exports = new WebAssembly.Instance(module, imports).exports as SqliteExports;
  exports["__wasm_call_ctors"]();
  const table = exports["__indirect_function_table"] as WebAssembly.Table;

  return {
    exports,
    memory,
    bytes() {
      refresh();
      return bytes;
    },
    view() {
      refresh();
      return view;
    },
    pointerTo(callback, signature) {
      const index = table.grow(1);
      table.set(index, exportedFunction(callback, signature));
      return index;
    },
    allocString(text) {
      const encoded = Buffer.from(`${text}\0`, "utf8");
      const address = exports["sqlite3_malloc"](encoded.length) >>> 0;
      if (address === 0) throw new Error("SQLite is out of memory");
      refresh();
      bytes.set(encoded, address);
      return address;
    },
    stringAt(address) {
      refresh();
      if (address === 0) return "";
      return bytes.toString("utf8", address, bytes.indexOf(0, address));
    },
  };
}

/** A module of one imported function that it exports again. All lengths are below 128, so each LEB128 is one byte. */
function exportedFunction(callback: (...args: never[]) => number, signature: Signature): WebAssembly.ExportValue {
  const types = [...signature].map((letter) => valueTypes[letter as keyof typeof valueTypes]);
  const parameters = types.slice(1);
  const typeSection = [0x01, 0x60, parameters.length, ...parameters, 1, types[0]!];
  const module = new WebAssembly.Module(
    // biome-ignore format: one section a line
    new Uint8Array([
      0x00, 0x61, 0x73, 0x6d, 0x01, 0x00, 0x00, 0x00,
      0x01, typeSection.length, ...typeSection,
      0x02, 0x07, 0x01, 0x01, 0x65, 0x01, 0x66, 0x00, 0x00, // import "e" "f" as a function of type 0
      0x07, 0x05, 0x01, 0x01, 0x66, 0x00, 0x00, // export it as "f"
    ]),
  );
  return new WebAssembly.Instance(module, { e: { f: callback } }).exports["f"]!;
}
