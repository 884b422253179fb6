// Builds a one-layer OCI image as one tar (OCI image layout 1.0, https://github.com/opencontainers/image-spec/blob/v1.0.2/image-layout.md).
// The layer stays uncompressed: its digest then depends on no zlib version, and a board imports it without inflating.
// index.json comes first, so that whoever wants to know what an archive holds reads only its first block or two.
import { createHash } from "node:crypto";
import { type TarEntry, tarArchive } from "./tar.ts";

export interface ImageSpec {
  /** Full reference, e.g. mote.local/pause:1. */
  readonly reference: string;
  readonly architecture: string;
  /** OCI variant, e.g. v7 for 32-bit ARM. */
  readonly variant?: string;
  readonly entries: readonly TarEntry[];
  readonly entrypoint?: readonly string[];
  readonly cmd?: readonly string[];
  readonly user?: string;
  readonly workingDir?: string;
  readonly ports?: readonly string[];
  readonly labels?: Readonly<Record<string, string>>;
  /** One line for the history, e.g. what packages it was made from. */
  readonly madeFrom: string;
}

export interface BuiltImage {
  readonly reference: string;
  /** Digest of the manifest: what `ctr images ls` shows after an import. */
  readonly digest: string;
  readonly archive: Uint8Array<ArrayBuffer>;
}

const epoch = "1970-01-01T00:00:00Z";

export function buildImage(spec: ImageSpec): BuiltImage {
  const layer = tarArchive(spec.entries, { sorted: true });
  const platform = {
    architecture: spec.architecture,
    os: "linux",
    ...(spec.variant === undefined ? {} : { variant: spec.variant }),
  };
  const config = json({
    created: epoch,
    ...platform,
    config: {
      Env: ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
      ...(spec.user === undefined ? {} : { User: spec.user }),
      ...(spec.entrypoint === undefined ? {} : { Entrypoint: spec.entrypoint }),
      ...(spec.cmd === undefined ? {} : { Cmd: spec.cmd }),
      ...(spec.workingDir === undefined ? {} : { WorkingDir: spec.workingDir }),
      ...(spec.ports === undefined ? {} : { ExposedPorts: Object.fromEntries(spec.ports.map((port) => [port, {}])) }),
      ...(spec.labels === undefined ? {} : { Labels: spec.labels }),
    },
    rootfs: { type: "layers", diff_ids: [digestOf(layer)] },
    history: [{ created: epoch, created_by: spec.madeFrom }],
  });
  const manifest = json({
    schemaVersion: 2,
    mediaType: "application/vnd.oci.image.manifest.v1+json",
    config: describe("application/vnd.oci.image.config.v1+json", config),
    layers: [describe("application/vnd.oci.image.layer.v1.tar", layer)],
  });
  const index = json({
    schemaVersion: 2,
    mediaType: "application/vnd.oci.image.index.v1+json",
    manifests: [
      {
        ...describe("application/vnd.oci.image.manifest.v1+json", manifest),
        platform,
        annotations: {
          "io.containerd.image.name": spec.reference,
          "org.opencontainers.image.ref.name": spec.reference.slice(spec.reference.lastIndexOf(":") + 1),
        },
      },
    ],
  });
  const blob = (data: Uint8Array): TarEntry => file(`blobs/sha256/${digestOf(data).slice("sha256:".length)}`, data);
  const archive = tarArchive(
    [
      file("index.json", index),
      file("oci-layout", json({ imageLayoutVersion: "1.0.0" })),
      { path: "blobs", type: "folder", mode: 0o755 },
      { path: "blobs/sha256", type: "folder", mode: 0o755 },
      blob(manifest),
      blob(config),
      blob(layer),
    ],
    { sorted: false },
  );
  return { reference: spec.reference, digest: digestOf(manifest), archive };
}

export const file = (path: string, data: string | Uint8Array, mode = 0o644): TarEntry => ({
  path,
  type: "file",
  mode,
  data: typeof data === "string" ? new Uint8Array(Buffer.from(data)) : data,
});
export const folder = (path: string, mode = 0o755): TarEntry => ({ path, type: "folder", mode });
export const link = (path: string, target: string): TarEntry => ({ path, type: "link", mode: 0o777, target });

const json = (value: unknown): Uint8Array => new Uint8Array(Buffer.from(JSON.stringify(value)));
const digestOf = (data: Uint8Array): string => `sha256:${createHash("sha256").update(data).digest("hex")}`;
const describe = (mediaType: string, data: Uint8Array) => ({ mediaType, digest: digestOf(data), size: data.length });
