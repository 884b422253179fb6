// One emulated device while it runs: the QEMU process, its console as lines, its control socket. Invariant: QEMU ends
// with this process, and a wait ends at once when QEMU does or when the console says that waiting is in vain.
import { type ChildProcess, spawn } from "node:child_process";
import { appendFileSync, existsSync } from "node:fs";
import { copyFile, mkdir, rm } from "node:fs/promises";
import { connect } from "node:net";
import { join } from "node:path";
import { UserError } from "#scripts/stages.ts";
import { failureIn, isStrayBreakpoint, LineReader, type MarkerName, markerIn, markers } from "./console.ts";
import { FatPartition } from "./disk.ts";
import { type Flow, type MachineFiles, type MachineOptions, pluggedLater, qemuArguments } from "./machines.ts";

export interface ConsoleLine {
  readonly text: string;
  /** Since power-on. */
  readonly atMs: number;
}

export interface VmOptions extends Omit<MachineOptions, "files"> {
  readonly flow: Flow;
  /** Holds the console log, firmware variables and sockets. */
  readonly folder: string;
  readonly disk: string;
  readonly onLine?: (line: string) => void;
}

/** Bounded: an endless stream of messages must not fill the memory; the log file keeps them all. */
const maxLines = 50_000;
/** setTimeout knows no more than 31 bits. */
const maxTimerMs = 2 ** 31 - 1;

export class Vm {
  readonly flow: Flow;
  readonly files: MachineFiles;
  readonly pid: number;
  readonly startedMs = performance.now();
  readonly lines: ConsoleLine[] = [];
  /** Lines since power-on or the last `expectBoot`. */
  #bootIndex = 0;
  #bootMs = this.startedMs;
  readonly #child: ChildProcess;
  readonly #reader = new LineReader();
  readonly #waiters = new Set<() => void>();
  #failure: string | undefined;
  #isForgiven = false;
  #exit: string | undefined;
  #stderr = "";
  /** One plug at a time. */
  #plugging: Promise<void> = Promise.resolve();
  #isPlugged = false;

  static async start(options: VmOptions): Promise<Vm> {
    const { flow, folder, disk } = options;
    await mkdir(folder, { recursive: true });
    const files: MachineFiles = {
      disk,
      variables: join(folder, "firmware-variables.fd"),
      boardFolder: join(folder, "board"),
      consoleLog: join(folder, "console.log"),
      loaderLog: join(folder, "loader.log"),
      qmpSocket: join(folder, "qmp"),
    };
    // Paths of sockets are short by law: 107 bytes.
    if (Buffer.byteLength(files.qmpSocket) > 107) throw new UserError(`${folder} is too long a path for a socket`);
    await rm(files.qmpSocket, { force: true });
    if (flow.flash && !existsSync(files.variables)) await copyFile(flow.flash.variables, files.variables);
    if (flow.loadedByBoard) {
      await mkdir(files.boardFolder, { recursive: true });
      const boot = await FatPartition.of(disk);
      for (const name of Object.values(flow.loadedByBoard)) await boot.take(name, join(files.boardFolder, name));
    }
    appendFileSync(files.consoleLog, `\n--- power on ${new Date().toISOString()} ${flow.name}\n`);
    return new Vm(options, files);
  }

  private constructor(options: VmOptions, files: MachineFiles) {
    this.flow = options.flow;
    this.files = files;
    this.#child = spawn(options.flow.emulator, qemuArguments(options.flow, { ...options, files }), {
      stdio: ["ignore", "pipe", "pipe"],
      // Ctrl-C in the terminal is for the runner, which switches the device off in order.
      detached: true,
    });
    this.pid = this.#child.pid ?? 0;
    const killChild = () => this.#child.kill("SIGKILL");
    // QEMU has a process group of its own, so it must be told when this process is ended from outside.
    const onSignal = Object.assign(
      (signal: NodeJS.Signals) => {
        // Somebody else who listens switches the device off in order; another device's listener is like this one.
        if (process.listeners(signal).every((one) => "endsQemu" in one)) process.exit(1);
      },
      { endsQemu: true },
    );
    const signals = ["SIGINT", "SIGTERM", "SIGHUP"] as const;
    process.once("exit", killChild);
    for (const signal of signals) process.on(signal, onSignal);
    this.#child.stdout!.on("data", (chunk: Buffer) => {
      for (const text of this.#reader.feed(chunk)) this.#onLine(text, options.onLine);
      if (/^grub(?: rescue)?> ?$/.test(this.#reader.unfinished)) this.#failure ??= "GRUB found no configuration";
      this.#wake();
    });
    this.#child.stderr!.on("data", (chunk: Buffer) => {
      this.#stderr = (this.#stderr + chunk.toString("utf8")).slice(-4000);
    });
    this.#child.on("error", (error) => {
      this.#exit ??= error.message;
      this.#wake();
    });
    this.#child.on("close", (code, signal) => {
      process.off("exit", killChild);
      for (const signal of signals) process.off(signal, onSignal);
      // Ended from outside it exits with 0, too, and says by whom.
      const how = code === 0 ? "QEMU ended" : `QEMU ended with ${signal ?? `exit ${code}`}`;
      const said = this.#stderr.trim();
      this.#exit ??= said ? `${how}: ${said}` : how;
      this.#wake();
    });
  }

  get hasExited(): boolean {
    return this.#exit !== undefined;
  }

  /** Time since power-on or the last `expectBoot`. */
  get sinceBootMs(): number {
    return performance.now() - this.#bootMs;
  }

  /** From here on only lines of the next boot count, and times are measured from now. */
  expectBoot(): void {
    this.#bootIndex = this.lines.length;
    this.#bootMs = performance.now();
    this.#failure = undefined;
  }

  /** Lines of this boot. */
  bootLines(): readonly ConsoleLine[] {
    return this.lines.slice(this.#bootIndex);
  }

  /** Resolves with the time since boot when the marker was seen. */
  async waitForMarker(name: MarkerName, timeoutMs: number): Promise<number> {
    const what = markers.find((marker) => marker.name === name)!.says;
    const line = await this.waitForLine((text) => markerIn(text) === name, what, timeoutMs);
    return line.atMs - (this.#bootMs - this.startedMs);
  }

  async waitForLine(matches: (text: string) => boolean, what: string, timeoutMs: number): Promise<ConsoleLine> {
    let next = this.#bootIndex;
    const check = (): ConsoleLine | undefined => {
      for (; next < this.lines.length; next++) if (matches(this.lines[next]!.text)) return this.lines[next];
      return undefined;
    };
    const endMs = performance.now() + timeoutMs;
    for (;;) {
      const found = check();
      if (found) return found;
      if (this.#failure) throw new UserError(`waiting for ${what}: ${this.#failure}\n${this.tail()}`);
      if (this.#exit) throw new UserError(`waiting for ${what}: ${this.#exit}\n${this.tail()}`);
      const leftMs = endMs - performance.now();
      if (leftMs <= 0) {
        throw new UserError(`waiting for ${what}: nothing within ${Math.round(timeoutMs / 1000)} s\n${this.tail()}`);
      }
      await this.#change(leftMs);
    }
  }

  /** True when QEMU ended by itself in time. */
  async waitForExit(timeoutMs: number): Promise<boolean> {
    const endMs = performance.now() + timeoutMs;
    while (!this.#exit && performance.now() < endMs) await this.#change(endMs - performance.now());
    return this.#exit !== undefined;
  }

  /** Cuts the power. */
  async kill(): Promise<void> {
    if (this.#exit) return;
    this.#child.kill("SIGKILL");
    await this.waitForExit(10_000);
  }

  tail(count = 15): string {
    const last = this.lines.slice(-count).map((line) => `    | ${line.text}`);
    return [...last, `    (whole console: ${this.files.consoleLog})`].join("\n");
  }

  /** One command on QEMU's control socket. */
  async qmp<T = unknown>(execute: string, args?: Record<string, unknown>): Promise<T> {
    const socket = connect(this.files.qmpSocket);
    socket.setTimeout(20_000, () => socket.destroy(new Error("QEMU's control socket is silent")));
    const commands = [{ execute: "qmp_capabilities" }, { execute, ...(args ? { arguments: args } : {}) }];
    let text = "";
    const answers: { return?: unknown; error?: { desc: string } }[] = [];
    try {
      for await (const chunk of socket) {
        text += (chunk as Buffer).toString("utf8");
        for (let end = text.indexOf("\n"); end >= 0; end = text.indexOf("\n")) {
          const message = JSON.parse(text.slice(0, end)) as Record<string, unknown>;
          text = text.slice(end + 1);
          if ("return" in message || "error" in message) answers.push(message);
          else if (!("QMP" in message)) continue; // an event
          const command = commands[answers.length];
          if (command) socket.write(`${JSON.stringify(command)}\n`);
          const last = answers.at(-1);
          if (last?.error) throw new UserError(`QEMU refuses ${execute}: ${last.error.desc}`);
          if (answers.length === commands.length) return last?.return as T;
        }
      }
      throw new UserError("QEMU's control socket closed");
    } finally {
      socket.destroy();
    }
  }

  /** The network adapter of boards that have it on USB; see `pluggedLater`. */
  plugAdapter(isIn: boolean): Promise<void> {
    const { id, driver, netdev, port } = pluggedLater;
    const plug = async () => {
      if (isIn === this.#isPlugged) return;
      await this.qmp(isIn ? "device_add" : "device_del", isIn ? { id, driver, netdev, port } : { id });
      this.#isPlugged = isIn;
    };
    this.#plugging = this.#plugging.then(plug, plug);
    return this.#plugging;
  }

  #followUsb(text: string): void {
    // By then all drivers are loaded: one that finds the port in use while it starts loses the adapter, too.
    const isIn = markerIn(text) === "config";
    if (!isIn && !/^U-Boot \d/.test(text)) return;
    this.plugAdapter(isIn).catch((error: Error) => {
      if (this.#exit) return;
      this.#failure ??= `the network adapter cannot be plugged: ${error.message}`;
      this.#wake();
    });
  }

  #onLine(text: string, show: ((line: string) => void) | undefined): void {
    if (this.flow.network === "usb") this.#followUsb(text);
    this.lines.push({ text, atMs: performance.now() - this.startedMs });
    if (this.lines.length > maxLines) {
      this.lines.splice(0, maxLines / 2);
      this.#bootIndex = Math.max(0, this.#bootIndex - maxLines / 2);
    }
    const failure = failureIn(text);
    // Once: what happens again is to be looked at.
    if (failure && !this.#isForgiven && isStrayBreakpoint(this.bootLines().map((line) => line.text))) {
      this.#isForgiven = true;
      console.log("the emulated kernel met a breakpoint of its own and panicked; it starts again");
    } else this.#failure ??= failure;
    show?.(text);
  }

  #wake(): void {
    for (const waiter of [...this.#waiters]) waiter();
  }

  /** Resolves when something was said or QEMU ended, at the latest after `timeoutMs`. */
  #change(timeoutMs: number): Promise<void> {
    return new Promise((resolve) => {
      const done = () => {
        clearTimeout(timer);
        this.#waiters.delete(done);
        resolve();
      };
      const timer = setTimeout(done, Math.min(Math.max(1, timeoutMs), maxTimerMs));
      this.#waiters.add(done);
    });
  }
}

/** Asks for an orderly stop and waits for it; where the power button does not reach the guest, `otherwise` asks. */
export async function powerDown(vm: Vm, timeoutMs: number, otherwise?: () => Promise<unknown>): Promise<boolean> {
  if (vm.hasExited) return true;
  if (vm.flow.hasPowerButton) await vm.qmp("system_powerdown");
  else if (otherwise) await otherwise();
  else return false;
  return vm.waitForExit(timeoutMs);
}
