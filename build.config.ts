// What mote is built from and for: architectures, pinned versions, host packages. Data only; `scripts/` reads it,
// `src/` never does (what the product must know at run time is passed in as esbuild defines).

export interface Architecture {
  /** Debian's name, as in `dpkg --print-architecture`. */
  readonly debian: "amd64" | "arm64" | "armhf";
  /** Node's name, as in `process.arch`. */
  readonly node: "x64" | "arm64" | "arm";
  /** GOARCH, as in `status.nodeInfo.architecture` and OCI manifests. */
  readonly oci: "amd64" | "arm64" | "arm";
  /** Name of the user-mode emulator in Debian's qemu-user-static. */
  readonly qemuUser: string;
}

export const architectures: readonly Architecture[] = [
  { debian: "amd64", node: "x64", oci: "amd64", qemuUser: "qemu-x86_64-static" },
  { debian: "arm64", node: "arm64", oci: "arm64", qemuUser: "qemu-aarch64-static" },
  { debian: "armhf", node: "arm", oci: "arm", qemuUser: "qemu-arm-static" },
];

export const versions = {
  /** The Kubernetes version whose API is served. */
  kubernetes: "v1.32.3",
  /** `v1.32.<patch>+mote<n>`. */
  mote: "v1.32.3+mote0",
  /** Suite that peers (kubectl, etcd) and API facts are unpacked from. */
  debianSuite: "trixie",
} as const;

/** Host programs a node needs and the Debian packages that bring them. */
export const hostPackages: readonly { readonly program: string; readonly package: string; readonly why: string }[] = [
  { program: "/usr/bin/containerd", package: "containerd", why: "container runtime" },
  { program: "/usr/sbin/runc", package: "runc", why: "starts containers for containerd" },
  { program: "/usr/lib/cni/bridge", package: "containernetworking-plugins", why: "pod network interfaces" },
  { program: "/usr/sbin/nft", package: "nftables", why: "service addresses" },
  { program: "/usr/sbin/ip", package: "iproute2", why: "bridges and routes" },
  { program: "/usr/sbin/conntrack", package: "conntrack", why: "forgets connections to ended pods" },
];

/** A package of the suite, unpacked beside the host's own: exact version and hash per architecture. */
export interface Pin {
  readonly name: string;
  readonly version: string;
  readonly arch: Architecture["debian"];
  readonly sha256: string;
}

const pins = (
  name: string,
  version: string,
  hashes: Readonly<Record<Architecture["debian"], string>>,
): readonly Pin[] => architectures.map(({ debian }) => ({ name, version, arch: debian, sha256: hashes[debian] }));

/** kubectl for hosts without one, and for the tests. */
export const kubectlPins = pins("kubectl", "1.32.3+ds-2", {
  amd64: "9825aaf4c14913027aae04af8688e580459f781c829bd5de00cc4dc2cc5a867f",
  arm64: "b85800b5e2d2ecc958e2b9dfa7d4ce13b14e1175242de1f71acb4fa4b0b63212",
  armhf: "6e283f82532c13ce736644b8838eceb9c7d82ad08da5f829203278c2acf2d701",
});
