// The part of the WebAssembly API that is used, for the compiler: without the DOM library it does not know it.
declare namespace WebAssembly {
  type ExportValue = ((...args: never[]) => unknown) | Memory | Table;
  type ImportValue = ((...args: never[]) => unknown) | Memory;
  type Imports = Record<string, Record<string, ImportValue>>;

  interface Memory {
    readonly buffer: ArrayBuffer;
    grow(pages: number): number;
  }
  const Memory: new (descriptor: { initial: number; maximum: number }) => Memory;

  interface Table {
    grow(elements: number): number;
    set(index: number, value: ExportValue): void;
  }

  type Module = object;
  const Module: {
    new (bytes: Uint8Array): Module;
    imports(module: Module): { module: string; name: string; kind: string }[];
    exports(module: Module): { name: string; kind: string }[];
  };

  interface Instance {
    readonly exports: Record<string, ExportValue>;
  }
  const Instance: new (module: Module, imports: Imports) => Instance;

  type RuntimeError = Error;
  const RuntimeError: new (message?: string) => RuntimeError;
}
