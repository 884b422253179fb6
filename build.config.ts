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

export interface HostPackage {
  readonly program: string;
  readonly package: string;
  readonly why: string;
}

/** Host programs a node needs and the Debian packages that bring them. */
export const hostPackages: readonly HostPackage[] = [
  { program: "/usr/bin/containerd", package: "containerd", why: "container runtime" },
  { program: "/usr/sbin/runc", package: "runc", why: "starts containers for containerd" },
  { program: "/usr/lib/cni/bridge", package: "containernetworking-plugins", why: "pod network interfaces" },
  { program: "/usr/sbin/nft", package: "nftables", why: "service addresses" },
  { program: "/usr/sbin/ip", package: "iproute2", why: "bridges and routes" },
  { program: "/usr/sbin/conntrack", package: "conntrack", why: "forgets connections to ended pods" },
];

/** Other programs that tests hold ours against. */
export const testPackages: readonly HostPackage[] = [
  { program: "/usr/bin/busybox", package: "busybox", why: "unpacks our cpio archives" },
  { program: "/usr/bin/readelf", package: "binutils", why: "names libraries as our ELF reader does" },
  { program: "/usr/bin/mcopy", package: "mtools", why: "reads our FAT file systems" },
  { program: "/usr/sbin/fsck.fat", package: "dosfstools", why: "checks our FAT file systems" },
  { program: "/usr/bin/grub-editenv", package: "grub-common", why: "reads our GRUB environment" },
  { program: "/usr/bin/sqlite3", package: "sqlite3", why: "reads the datastore's file" },
  { program: "/usr/sbin/sfdisk", package: "fdisk", why: "reads our partition tables" },
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

/** etcd and its client, which the etcd API is compared with. Tests only. */
export const etcdServerPins = pins("etcd-server", "3.5.16-4", {
  amd64: "0875921bb0d023f2af9b8e15cdfbe417a03e65731345fb832c40f9c2dd72967b",
  arm64: "5e21469a4f59f1cb2ed7af9c6eb9dda7d9734809c011cfa8a39b34f82a161a32",
  armhf: "6cb6231d46cef7b49c52afb3957d5f46633bb07680138f08d4f88e4c8c5b6e89",
});
export const etcdClientPins = pins("etcd-client", "3.5.16-4", {
  amd64: "7eb67e305ba2ce523a5a0b29bf88750ded3f724769c7111a83382b7909f9977b",
  arm64: "56c3527045c4ddd0aca5a572897b9a72e43a015cb09a01c79acc08eda17904ca",
  armhf: "608ab625d89c750e6c4ec94b2beb7a5e827688ec39ca3b75937359d72671c5c2",
});
