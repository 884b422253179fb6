// Moves the bytes of exec, attach and port-forward between a client (through the API server) and containerd's stream
// server, which speaks SPDY on the loopback address.
//
//   client            here                         containerd
//   WebSocket         channel bytes <-> streams    SPDY client session    exec, attach
//   WebSocket tunnel  messages <-> bytes           passed through         port-forward of kubectl >= 1.31
//   SPDY              passed through               passed through         older kubectl, client-go's SPDY executor
//
// containerd is dialled before the client gets its 101, so that a refusal is still a plain HTTP answer. Whichever side
// ends first, the other is closed. Upstream counterpart: k8s.io/apiserver/pkg/util/proxy (StreamTranslatorHandler).
import { AppError, messageOf } from "#base/errors.ts";
import type { Logger } from "#base/log.ts";
import type { Duplex, ServerUpgrade } from "#platform/https-server.ts";
import { tunnel } from "#platform/tunnel.ts";
import { isUpgraded, openUpgrade, type UpgradedAnswer } from "#platform/upgrade-client.ts";
import { acceptWebSocket, acceptWebSocketStream } from "#platform/websocket.ts";
import {
  type ChannelName,
  carriesStatus,
  decodeChannel,
  encodeChannel,
  failureStatus,
  portForwardProtocol,
  spdyProtocols,
  statusText,
  tunnelledPortForwardProtocol,
} from "#wire/remote-command.ts";
import { SpdySession, type SpdyStream } from "#wire/spdy.ts";

export interface WantedStreams {
  readonly stdin: boolean;
  readonly stdout: boolean;
  readonly stderr: boolean;
  readonly tty: boolean;
}

export interface StreamDeps {
  readonly log: Logger;
}

/** containerd answers at once or not at all. */
const dialTimeoutMs = 30_000;
const maxErrorBytes = 4096;

/** exec or attach for a WebSocket client. Rejects while the client's connection is untouched; resolves when all is over. */
export async function bridgeCommand(
  upgrade: ServerUpgrade,
  protocol: string,
  url: string,
  wanted: WantedStreams,
  deps: StreamDeps,
): Promise<void> {
  const runtime = await dialRuntime(url, spdyProtocols, upgrade.request.signal);
  await new Promise<void>((resolve) => {
    acceptWebSocket(upgrade, protocol, (client) => {
      const { socket } = runtime;
      const send = (name: ChannelName, bytes: Uint8Array) => client.send(encodeChannel(name, bytes, protocol));
      let hasStatus = false;
      let isOver = false;
      /** The Status for a client that gets its text: it may come in pieces. */
      let status: Uint8Array = new Uint8Array(0);
      const finish = () => {
        if (isOver) return;
        isOver = true;
        if (!hasStatus) status = failureStatus("the container runtime closed the stream");
        const told = carriesStatus(protocol) ? status : Buffer.from(statusText(status));
        if (status.length > 0 && told.length > 0) send("error", told);
        client.close(1000);
        session.close();
        closeSoon(socket);
        resolve();
      };
      const session = new SpdySession({
        role: "client",
        send: (bytes) => {
          // A paused WebSocket could not finish its closing handshake, hence not once all is over.
          if (!socket.destroyed && !socket.write(bytes) && !isOver) client.pause();
        },
      });
      const open = new Set<ChannelName>();
      const streams: Partial<Record<ChannelName, SpdyStream>> = {};
      const start = (name: ChannelName) => {
        const isOutput = name === "stdout" || name === "stderr" || name === "error";
        const over = () => {
          open.delete(name);
          if (open.size === 0) finish();
        };
        if (isOutput) open.add(name);
        streams[name] = session.open(
          { streamtype: name },
          {
            data(bytes) {
              if (isOver) return;
              if (name === "error") {
                hasStatus = true;
                if (!carriesStatus(protocol)) {
                  status = Buffer.concat([status, bytes]).subarray(0, maxErrorBytes);
                  return;
                }
              }
              if (!send(name, bytes)) socket.pause();
            },
            end: over,
            reset: over,
          },
        );
      };
      // The order of client-go's version 4: whoever serves it waits for all, but logs the first.
      start("error");
      if (wanted.stdin) start("stdin");
      if (wanted.stdout) start("stdout");
      if (wanted.stderr && !wanted.tty) start("stderr");
      if (wanted.tty) start("resize");
      const receive = (bytes: Uint8Array) => {
        try {
          session.receive(bytes);
        } catch (error) {
          deps.log.warn("stream server of the runtime broke the protocol", { error: messageOf(error) });
          finish();
        }
      };
      socket.on("data", receive);
      socket.on("drain", () => client.resume());
      socket.on("error", finish);
      socket.on("end", finish);
      socket.on("close", finish);
      if (runtime.head.length > 0) receive(runtime.head);
      // As upstream: an empty message on the first output channel tells the client that it is connected.
      send(wanted.stdout ? "stdout" : wanted.stderr ? "stderr" : "error", new Uint8Array(0));
      return {
        message(bytes) {
          try {
            const message = decodeChannel(bytes, protocol);
            if (message.channel !== "stdin" && message.channel !== "resize") return;
            const stream = streams[message.channel];
            if (message.kind === "close") stream?.end();
            else if (message.data.length > 0) stream?.write(message.data);
          } catch (error) {
            deps.log.debug("client sent an unknown channel", { error: messageOf(error) });
            client.close(1002, messageOf(error));
          }
        },
        drain: () => socket.resume(),
        close() {
          hasStatus = true;
          finish();
        },
      };
    });
  });
}

/** exec, attach or port-forward for a SPDY client: the upgrade is repeated towards containerd, then bytes flow. */
export async function passSpdy(upgrade: ServerUpgrade, url: string): Promise<void> {
  const offered = upgrade.request.headers["x-stream-protocol-version"];
  const protocols = (Array.isArray(offered) ? offered : [offered ?? ""]).flatMap((value) => value.split(","));
  const runtime = await dialRuntime(
    url,
    protocols.map((value) => value.trim()).filter((value) => value !== ""),
    upgrade.request.signal,
  );
  const chosen = runtime.headers["x-stream-protocol-version"];
  upgrade.socket.write(
    `HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n${
      typeof chosen === "string" ? `X-Stream-Protocol-Version: ${chosen}\r\n` : ""
    }\r\n`,
  );
  await tunnel({ socket: upgrade.socket, head: upgrade.head }, { socket: runtime.socket, head: runtime.head });
}

/** port-forward for a client that wraps SPDY bytes in WebSocket messages. */
export async function passTunnelledSpdy(upgrade: ServerUpgrade, url: string): Promise<void> {
  const runtime = await dialRuntime(url, [portForwardProtocol], upgrade.request.signal);
  const client = await acceptWebSocketStream(upgrade, tunnelledPortForwardProtocol);
  await tunnel({ socket: client, head: new Uint8Array(0) }, { socket: runtime.socket, head: runtime.head });
}

/**
 * port-forward for clients that predate the tunnel (@kubernetes/client-node): of each port two channels, data and error,
 * that both begin with the port as two little-endian bytes; one connection inside the pod per port.
 */
export async function bridgePortForward(
  upgrade: ServerUpgrade,
  protocol: string,
  url: string,
  ports: readonly number[],
  deps: StreamDeps,
): Promise<void> {
  const runtime = await dialRuntime(url, [portForwardProtocol], upgrade.request.signal);
  await new Promise<void>((resolve) => {
    acceptWebSocket(upgrade, protocol, (client) => {
      const { socket } = runtime;
      let isOver = false;
      const finish = () => {
        if (isOver) return;
        isOver = true;
        client.close(1000);
        session.close();
        closeSoon(socket);
        resolve();
      };
      const session = new SpdySession({
        role: "client",
        send: (bytes) => {
          // A paused WebSocket could not finish its closing handshake, hence not once all is over.
          if (!socket.destroyed && !socket.write(bytes) && !isOver) client.pause();
        },
      });
      let openPorts = ports.length;
      const data = ports.map((port, index) => {
        const channel = (offset: number) => (bytes: Uint8Array) => {
          const message = new Uint8Array(bytes.length + 1);
          message[0] = index * 2 + offset;
          message.set(bytes, 1);
          if (!client.send(message)) socket.pause();
        };
        const headers = { port: String(port), requestid: String(index) };
        const nothing = { end() {}, reset() {} };
        const error = session.open({ ...headers, streamtype: "error" }, { ...nothing, data: channel(1) });
        error.end();
        let isClosed = false;
        const closed = () => {
          if (isClosed) return;
          isClosed = true;
          openPorts--;
          if (openPorts === 0) finish();
        };
        const portBytes = Uint8Array.of(port & 255, port >> 8);
        channel(0)(portBytes);
        channel(1)(portBytes);
        return session.open({ ...headers, streamtype: "data" }, { data: channel(0), end: closed, reset: closed });
      });
      const receive = (bytes: Uint8Array) => {
        try {
          session.receive(bytes);
        } catch (error) {
          deps.log.warn("stream server of the runtime broke the protocol", { error: messageOf(error) });
          finish();
        }
      };
      socket.on("data", receive);
      socket.on("drain", () => client.resume());
      for (const event of ["error", "end", "close"]) socket.on(event, finish);
      if (runtime.head.length > 0) receive(runtime.head);
      return {
        message: (bytes) => data[(bytes[0] ?? 0) >> 1]?.write(bytes.subarray(1)),
        drain: () => socket.resume(),
        close: finish,
      };
    });
  });
}

/** Lets what was written go out, then closes for good. */
function closeSoon(socket: Duplex): void {
  if (socket.destroyed) return;
  socket.end(() => socket.destroy());
}

/** Opens a SPDY connection to the URL that containerd gave out. */
async function dialRuntime(url: string, protocols: readonly string[], signal: AbortSignal): Promise<UpgradedAnswer> {
  const target = new URL(url);
  const answer = await openUpgrade(
    { host: target.hostname.replace(/^\[|\]$/g, ""), port: Number(target.port || 80) },
    {
      method: "POST",
      target: `${target.pathname}${target.search}`,
      headers: {
        Connection: "Upgrade",
        Upgrade: "SPDY/3.1",
        "Content-Length": "0",
        // One line per version: servers before 1.31 do not split lists.
        "X-Stream-Protocol-Version": protocols,
      },
      timeoutMs: dialTimeoutMs,
    },
    signal,
  );
  if (isUpgraded(answer)) return answer;
  let text = "";
  for await (const chunk of answer.body) {
    text += Buffer.from(chunk).toString("utf8");
    if (text.length > maxErrorBytes) break;
  }
  throw new AppError("NODE_STREAM_REFUSED", text.trim() || `the container runtime answered ${answer.status}`, {
    status: answer.status,
  });
}
