// One question, one answer over a unix socket, a line of JSON each: how a command talks to the server of the same data
// folder. Whoever may enter the folder may ask; the folder is the owner's alone.
import { rmSync } from "node:fs";
import { createConnection, createServer, type Socket } from "node:net";
import { AppError, hasCode, messageOf } from "#base/errors.ts";
import { type Service, untilAborted } from "#base/service.ts";

/** A question is a handful of words. */
const maxRequestBytes = 64 * 1024;
const maxAnswerBytes = 4 * 1024 * 1024;

/** Answers until the service is stopped. What `answer` rejects with is told to who asked. */
export function controlSocket(name: string, path: string, answer: (request: unknown) => Promise<unknown>): Service {
  return {
    name,
    async run(signal, ready) {
      const sockets = new Set<Socket>();
      const reply = async (socket: Socket) => {
        let out: unknown;
        try {
          out = { ok: await answer(JSON.parse(await readLine(socket, maxRequestBytes))) };
        } catch (error) {
          out = { error: messageOf(error) };
        }
        socket.end(`${JSON.stringify(out)}\n`);
      };
      const server = createServer((socket) => {
        sockets.add(socket);
        socket.on("close", () => sockets.delete(socket));
        socket.on("error", () => socket.destroy());
        void reply(socket);
      });
      // Left by a server that was killed; two servers of one folder are kept apart by the process lock.
      rmSync(path, { force: true });
      // Whoever waits for this service can do without it, should the path be too long for a socket.
      ready();
      await new Promise<void>((resolve, reject) => {
        server.once("error", reject);
        server.listen(path, resolve);
      });
      await untilAborted(signal);
      for (const socket of sockets) socket.destroy();
      await new Promise<void>((resolve) => server.close(() => resolve()));
    },
  };
}

/** Asks; undefined when no server listens there. */
export async function askControlSocket(path: string, request: unknown): Promise<unknown> {
  const socket = createConnection(path);
  try {
    await new Promise<void>((resolve, reject) => {
      socket.once("error", reject);
      socket.once("connect", resolve);
    });
  } catch (error) {
    if (hasCode(error, "ENOENT") || hasCode(error, "ECONNREFUSED") || hasCode(error, "ENOTDIR")) return undefined;
    throw error;
  }
  socket.write(`${JSON.stringify(request)}\n`);
  const answer = JSON.parse(await readLine(socket, maxAnswerBytes)) as { ok?: unknown; error?: string };
  socket.destroy();
  if (answer.error !== undefined) throw new AppError("CONTROL_REFUSED", answer.error);
  return answer.ok;
}

function readLine(socket: Socket, maxBytes: number): Promise<string> {
  return new Promise((resolve, reject) => {
    let text = "";
    socket.on("data", (chunk: Buffer) => {
      text += chunk.toString("utf8");
      const end = text.indexOf("\n");
      if (end >= 0) resolve(text.slice(0, end));
      else if (text.length > maxBytes) reject(new AppError("CONTROL_REFUSED", "the message is too long"));
    });
    socket.once("error", reject);
    socket.once("close", () => reject(new AppError("CONTROL_REFUSED", "the connection ended without an answer")));
  });
}
