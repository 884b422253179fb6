// The protocol of exec and attach (Kubernetes "remotecommand"): five channels, over WebSocket as binary messages whose
// first byte is the channel, over SPDY as streams told apart by the header `streamtype`. v5 adds to v4 a message
// 255,CHANNEL that half-closes a channel, so that `cat file | kubectl exec -i` can end its input.
// Upstream counterpart: k8s.io/apimachinery/pkg/util/remotecommand, k8s.io/client-go/tools/remotecommand.
import { AppError } from "#base/errors.ts";

export const channels = { stdin: 0, stdout: 1, stderr: 2, error: 3, resize: 4 } as const;
export type ChannelName = keyof typeof channels;
export const channelNames: readonly ChannelName[] = ["stdin", "stdout", "stderr", "error", "resize"];

/**
 * Best first. `base64` ones are text messages: the channel's digit, then its bytes in base64, for clients that cannot send
 * binary ones. Before v4 the error channel carries a plain text, and nothing where the command succeeded.
 */
export const websocketProtocols = [
  "v5.channel.k8s.io",
  "v4.channel.k8s.io",
  "v4.base64.channel.k8s.io",
  "channel.k8s.io",
  "base64.channel.k8s.io",
] as const;
/** Port-forward by channels came with v4. */
export const portForwardWebsocketProtocols = ["v5.channel.k8s.io", "v4.channel.k8s.io"] as const;
/** What a WebSocket carries that only reads, such as a log: bytes as they are, or in base64. */
export const readerProtocols = ["binary.k8s.io", "base64.binary.k8s.io"] as const;
export const spdyProtocols = ["v4.channel.k8s.io"] as const;
/** SPDY bytes inside binary WebSocket messages, as kubectl 1.31 and later forward ports. */
export const tunnelledPortForwardProtocol = "SPDY/3.1+portforward.k8s.io";
export const portForwardProtocol = "portforward.k8s.io";

const closeMark = 255;
const zero = 0x30;

export type ChannelMessage =
  | { readonly kind: "data"; readonly channel: ChannelName; readonly data: Uint8Array }
  | { readonly kind: "close"; readonly channel: ChannelName };

export const isBase64 = (protocol: string): boolean =>
  protocol.startsWith("base64.") || protocol.startsWith("v4.base64.");
/** Whether the error channel carries a Status. */
export const carriesStatus = (protocol: string): boolean => protocol.startsWith("v");

/** A text is to be sent as a text message. */
export function encodeChannel(channel: ChannelName, data: Uint8Array, protocol = ""): Uint8Array | string {
  if (isBase64(protocol)) return `${channels[channel]}${Buffer.from(data).toString("base64")}`;
  const message = new Uint8Array(data.length + 1);
  message[0] = channels[channel];
  message.set(data, 1);
  return message;
}

export const encodeChannelClose = (channel: ChannelName): Uint8Array => Uint8Array.of(closeMark, channels[channel]);

/** Throws WIRE_CHANNEL for messages that no client may send. An empty message counts as data for stdin, as upstream. */
export function decodeChannel(message: Uint8Array, protocol: string): ChannelMessage {
  const first = message[0] ?? 0;
  if (first === closeMark && protocol === "v5.channel.k8s.io") {
    return { kind: "close", channel: nameOf(message[1] ?? closeMark) };
  }
  if (isBase64(protocol)) {
    const data = Buffer.from(Buffer.from(message.subarray(1)).toString("latin1"), "base64");
    return { kind: "data", channel: nameOf(message.length === 0 ? 0 : first - zero), data };
  }
  return { kind: "data", channel: nameOf(first), data: message.subarray(1) };
}

function nameOf(channel: number): ChannelName {
  const name = channelNames[channel];
  if (name === undefined) throw new AppError("WIRE_CHANNEL", `there is no channel ${channel}`);
  return name;
}

/** The first of `offered` (header values, each a list) that `known` has, in the client's order. */
export function negotiate(
  offered: string | readonly string[] | undefined,
  known: readonly string[],
): string | undefined {
  const list = (typeof offered === "string" ? [offered] : (offered ?? []))
    .flatMap((value) => value.split(","))
    .map((value) => value.trim());
  return list.find((value) => known.includes(value));
}

/** What the error channel carries when a stream broke and the runtime said nothing itself. */
export function failureStatus(message: string): Uint8Array {
  return new TextEncoder().encode(
    JSON.stringify({ metadata: {}, status: "Failure", message, reason: "InternalError", code: 500 }),
  );
}

/** What the error channel says about a command that ran to its end (code 0 is a success). */
export function exitStatus(exitCode: number): Uint8Array {
  return new TextEncoder().encode(
    JSON.stringify(
      exitCode === 0
        ? { metadata: {}, status: "Success" }
        : {
            metadata: {},
            status: "Failure",
            message: `command terminated with non-zero exit code: exit status ${exitCode}`,
            reason: "NonZeroExitCode",
            details: { causes: [{ reason: "ExitCode", message: String(exitCode) }] },
          },
    ),
  );
}

/** What the error channel carries before v4, made of the Status that it carries now. */
export function statusText(status: Uint8Array): string {
  const text = new TextDecoder().decode(status);
  try {
    const parsed = JSON.parse(text) as { readonly status?: unknown; readonly message?: unknown } | null;
    return parsed?.status === "Success" ? "" : String(parsed?.message ?? text);
  } catch {
    return text;
  }
}
