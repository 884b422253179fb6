// The rules of the Pod Security Standards, one entry each: what it forbids, from which minor on, and the words. A pod
// breaks a rule or does not; the table is all there is to know. Pure. Upstream:
// staging/src/k8s.io/pod-security-admission/policy.
import type { Container, EphemeralContainer, PodSpec, SELinuxOptions, Volume } from "#model/gen/core-v1.ts";
import { type Level, type LevelVersion, minorOf } from "./policy.ts";

export interface PodToCheck {
  readonly annotations: Readonly<Record<string, string>>;
  readonly spec: PodSpec;
}
export interface Violation {
  readonly reason: string;
  readonly detail: string;
}
type AnyContainer = Container | EphemeralContainer;
type Rule = (pod: PodToCheck, minor: number) => Violation | undefined;

interface Check {
  readonly id: string;
  readonly level: Exclude<Level, "privileged">;
  /** First minor in which it applies. */
  readonly since: number;
  readonly rule: Rule;
  /** Baseline checks that say less than this one. */
  readonly replaces?: string;
}

/** What breaks the standard, baseline rules first, each sorted by the rule's name. */
export function violations(policy: LevelVersion, pod: PodToCheck): Violation[] {
  if (policy.level === "privileged") return [];
  const minor = minorOf(policy);
  const applying = checks.filter(
    ({ level, since }) => since <= minor && (level === "baseline" || policy.level === "restricted"),
  );
  const replaced = new Set(applying.map(({ replaces }) => replaces));
  return applying
    .filter(({ id }) => !replaced.has(id))
    .sort((a, b) => (a.level === b.level ? (a.id < b.id ? -1 : 1) : a.level === "baseline" ? -1 : 1))
    .flatMap(({ rule }) => rule(pod, minor) ?? []);
}

const containersOf = ({ spec }: PodToCheck): AnyContainer[] => [
  ...(spec.initContainers ?? []),
  ...(spec.containers ?? []),
  ...(spec.ephemeralContainers ?? []),
];
const namesWhere = (pod: PodToCheck, test: (container: AnyContainer) => boolean): string[] =>
  containersOf(pod)
    .filter(test)
    .map(({ name }) => name);

const quoted = (names: readonly string[]): string => names.map((name) => JSON.stringify(name)).join(", ");
const plural = (word: string, names: readonly string[], many = `${word}s`): string =>
  names.length === 1 ? word : many;
const containers = (names: readonly string[]): string => `${plural("container", names)} ${quoted(names)}`;
const sorted = (values: Iterable<string>): string[] => [...new Set(values)].sort();

/** "pod", "container x", or both, whoever it is. */
function who(pod: boolean, names: readonly string[], joint = "and"): string {
  return [...(pod ? ["pod"] : []), ...(names.length > 0 ? [containers(names)] : [])].join(` ${joint} `);
}
const violation = (reason: string, detail: string): Violation => ({ reason, detail });
const isWindows = ({ spec }: PodToCheck): boolean => spec.os?.name === "windows";

// Baseline.

const appArmorAnnotation = "container.apparmor.security.beta.kubernetes.io/";
const mayAppArmor = (profile: string): boolean =>
  profile === "" || profile === "runtime/default" || profile.startsWith("localhost/");

const appArmorProfile: Rule = (pod) => {
  const details: string[] = [];
  const isBad = (type: string | undefined) => type !== undefined && type !== "RuntimeDefault" && type !== "Localhost";
  const own = pod.spec.securityContext?.appArmorProfile?.type;
  const names = namesWhere(pod, (c) => isBad(c.securityContext?.appArmorProfile?.type));
  if (isBad(own) || names.length > 0) {
    const values = sorted([
      ...(isBad(own) ? [own!] : []),
      ...containersOf(pod).flatMap((c) => {
        const type = c.securityContext?.appArmorProfile?.type;
        return isBad(type) ? [type!] : [];
      }),
    ]);
    details.push(`${who(isBad(own), names)} must not set AppArmor profile type to ${quoted(values)}`);
  }
  const bad = Object.entries(pod.annotations)
    .filter(([key, value]) => key.startsWith(appArmorAnnotation) && !mayAppArmor(value))
    .map(([key, value]) => `${key}=${JSON.stringify(value)}`)
    .sort();
  if (bad.length > 0) details.push(`${plural("annotation", bad)} ${bad.join(", ")}`);
  if (details.length === 0) return undefined;
  const isMany = names.length + bad.length + (isBad(own) ? 1 : 0) > 1;
  return violation(isMany ? "forbidden AppArmor profiles" : "forbidden AppArmor profile", details.join("; "));
};

const baselineCapabilities = new Set([
  "AUDIT_WRITE",
  "CHOWN",
  "DAC_OVERRIDE",
  "FOWNER",
  "FSETID",
  "KILL",
  "MKNOD",
  "NET_BIND_SERVICE",
  "SETFCAP",
  "SETGID",
  "SETPCAP",
  "SETUID",
  "SYS_CHROOT",
]);

/** Containers that add what is not allowed, and what. */
function addedCapabilities(pod: PodToCheck, allowed: ReadonlySet<string>): { names: string[]; capabilities: string[] } {
  const bad = (c: AnyContainer) => (c.securityContext?.capabilities?.add ?? []).filter((one) => !allowed.has(one));
  return {
    names: namesWhere(pod, (c) => bad(c).length > 0),
    capabilities: sorted(containersOf(pod).flatMap(bad)),
  };
}
const mustNotInclude = (names: readonly string[], capabilities: readonly string[]): string =>
  `${containers(names)} must not include ${quoted(capabilities)} in securityContext.capabilities.add`;

const capabilitiesBaseline: Rule = (pod) => {
  const { names, capabilities } = addedCapabilities(pod, baselineCapabilities);
  return names.length === 0 ? undefined : violation("non-default capabilities", mustNotInclude(names, capabilities));
};

const hostNamespaces: Rule = ({ spec }) => {
  const used = (["hostNetwork", "hostPID", "hostIPC"] as const).filter((field) => spec[field] === true);
  return used.length === 0 ? undefined : violation("host namespaces", used.map((field) => `${field}=true`).join(", "));
};

const hostPathVolumes: Rule = ({ spec }) => {
  const names = (spec.volumes ?? []).filter(({ hostPath }) => hostPath).map(({ name }) => name);
  return names.length === 0 ? undefined : violation("hostPath volumes", `${plural("volume", names)} ${quoted(names)}`);
};

const hostPorts: Rule = (pod) => {
  const bad = (c: AnyContainer) => (c.ports ?? []).flatMap(({ hostPort }) => (hostPort ? [hostPort] : []));
  const names = namesWhere(pod, (c) => bad(c).length > 0);
  if (names.length === 0) return undefined;
  const ports = sorted(containersOf(pod).flatMap(bad).map(String));
  const verb = names.length === 1 ? "uses" : "use";
  return violation("hostPort", `${containers(names)} ${verb} ${plural("hostPort", ports)} ${ports.join(", ")}`);
};

const privilegedContainers: Rule = (pod) => {
  const names = namesWhere(pod, (c) => c.securityContext?.privileged === true);
  if (names.length === 0) return undefined;
  return violation("privileged", `${containers(names)} must not set securityContext.privileged=true`);
};

const procMount: Rule = (pod) => {
  const bad = (c: AnyContainer) => {
    const mount = c.securityContext?.procMount;
    return mount !== undefined && mount !== "Default" ? [mount] : [];
  };
  const names = namesWhere(pod, (c) => bad(c).length > 0);
  if (names.length === 0) return undefined;
  const values = sorted(containersOf(pod).flatMap(bad));
  return violation("procMount", `${containers(names)} must not set securityContext.procMount to ${quoted(values)}`);
};

const seLinuxTypes = new Set(["", "container_t", "container_init_t", "container_kvm_t"]);

const seLinuxOptions: Rule = (pod, minor) => {
  const mayType = (type: string) => seLinuxTypes.has(type) || (minor >= 31 && type === "container_engine_t");
  const isBad = (options: SELinuxOptions | undefined) =>
    options !== undefined && (!mayType(options.type ?? "") || Boolean(options.user) || Boolean(options.role));
  const own = pod.spec.securityContext?.seLinuxOptions;
  const names = namesWhere(pod, (c) => isBad(c.securityContext?.seLinuxOptions));
  if (!isBad(own) && names.length === 0) return undefined;
  const all = [own, ...containersOf(pod).map((c) => c.securityContext?.seLinuxOptions)].filter(
    (one) => one !== undefined,
  );
  const types = sorted(all.flatMap(({ type = "" }) => (mayType(type) ? [] : [type])));
  const said = [
    ...(types.length > 0 ? [`${plural("type", types)} ${quoted(types)}`] : []),
    ...(all.some(({ user }) => user) ? ["user may not be set"] : []),
    ...(all.some(({ role }) => role) ? ["role may not be set"] : []),
  ];
  return violation(
    "seLinuxOptions",
    `${who(isBad(own), names)} set forbidden securityContext.seLinuxOptions: ${said.join("; ")}`,
  );
};

const seccompAnnotation = "seccomp.security.alpha.kubernetes.io/pod";
const seccompContainerAnnotation = "container.seccomp.security.alpha.kubernetes.io/";
const maySeccomp = (type: string | undefined): boolean =>
  type === undefined || type === "RuntimeDefault" || type === "Localhost";

const seccompBaseline: Rule = (pod, minor) => {
  if (minor < 19) {
    const mayText = (text: string) =>
      text === "runtime/default" || text === "docker/default" || text.startsWith("localhost/");
    const bad = Object.entries(pod.annotations)
      .filter(
        ([key, value]) => (key === seccompAnnotation || key.startsWith(seccompContainerAnnotation)) && !mayText(value),
      )
      .map(([key, value]) => `${key}=${JSON.stringify(value)}`)
      .sort();
    return bad.length === 0
      ? undefined
      : violation("seccompProfile", `forbidden ${plural("annotation", bad)} ${bad.join(", ")}`);
  }
  const own = pod.spec.securityContext?.seccompProfile?.type;
  const type = (c: AnyContainer) => c.securityContext?.seccompProfile?.type;
  const names = namesWhere(pod, (c) => !maySeccomp(type(c)));
  const isOwn = !maySeccomp(own);
  if (!isOwn && names.length === 0) return undefined;
  const values = sorted([own, ...containersOf(pod).map(type)].filter((each) => !maySeccomp(each)) as string[]);
  return violation(
    "seccompProfile",
    `${who(isOwn, names)} must not set securityContext.seccompProfile.type to ${quoted(values)}`,
  );
};

/** Safe sysctls by the minor from which on they count as such. */
const safeSysctls: Readonly<Record<string, number>> = {
  "kernel.shm_rmid_forced": 0,
  "net.ipv4.ip_local_port_range": 0,
  "net.ipv4.tcp_syncookies": 0,
  "net.ipv4.ping_group_range": 0,
  "net.ipv4.ip_unprivileged_port_start": 0,
  "net.ipv4.ip_local_reserved_ports": 27,
  "net.ipv4.tcp_keepalive_time": 29,
  "net.ipv4.tcp_fin_timeout": 29,
  "net.ipv4.tcp_keepalive_intvl": 29,
  "net.ipv4.tcp_keepalive_probes": 29,
  "net.ipv4.tcp_rmem": 32,
  "net.ipv4.tcp_wmem": 32,
};

const sysctls: Rule = ({ spec }, minor) => {
  const isSafe = (name: string) => Object.hasOwn(safeSysctls, name) && safeSysctls[name]! <= minor;
  const bad = (spec.securityContext?.sysctls ?? []).map(({ name }) => name).filter((name) => !isSafe(name));
  return bad.length === 0 ? undefined : violation("forbidden sysctls", bad.join(", "));
};

const windowsHostProcess: Rule = (pod) => {
  const isOwn = pod.spec.securityContext?.windowsOptions?.hostProcess === true;
  const names = namesWhere(pod, (c) => c.securityContext?.windowsOptions?.hostProcess === true);
  if (!isOwn && names.length === 0) return undefined;
  return violation("hostProcess", `${who(isOwn, names)} must not set securityContext.windowsOptions.hostProcess=true`);
};

// Restricted.

const allowPrivilegeEscalation: Rule = (pod, minor) => {
  if (minor >= 25 && isWindows(pod)) return undefined;
  const names = namesWhere(pod, (c) => c.securityContext?.allowPrivilegeEscalation !== false);
  if (names.length === 0) return undefined;
  return violation(
    "allowPrivilegeEscalation != false",
    `${containers(names)} must set securityContext.allowPrivilegeEscalation=false`,
  );
};

const restrictedCapabilities = new Set(["NET_BIND_SERVICE"]);

const capabilitiesRestricted: Rule = (pod, minor) => {
  if (minor >= 25 && isWindows(pod)) return undefined;
  const keeping = namesWhere(pod, (c) => !(c.securityContext?.capabilities?.drop ?? []).includes("ALL"));
  const { names, capabilities } = addedCapabilities(pod, restrictedCapabilities);
  if (keeping.length + names.length === 0) return undefined;
  const said = [
    ...(keeping.length > 0 ? [`${containers(keeping)} must set securityContext.capabilities.drop=["ALL"]`] : []),
    ...(names.length > 0 ? [mustNotInclude(names, capabilities)] : []),
  ];
  return violation("unrestricted capabilities", said.join("; "));
};

const restrictedVolumeSources = new Set([
  "configMap",
  "csi",
  "downwardAPI",
  "emptyDir",
  "ephemeral",
  "persistentVolumeClaim",
  "projected",
  "secret",
]);

const restrictedVolumes: Rule = ({ spec }) => {
  const typeOf = ({ name: _name, ...sources }: Volume): string => Object.keys(sources)[0] ?? "unknown";
  const bad = (spec.volumes ?? []).filter((volume) => !restrictedVolumeSources.has(typeOf(volume)));
  if (bad.length === 0) return undefined;
  const names = bad.map(({ name }) => name);
  const types = sorted(bad.map(typeOf));
  const verb = names.length === 1 ? "uses" : "use";
  return violation(
    "restricted volume types",
    `${plural("volume", names)} ${quoted(names)} ${verb} restricted volume ${plural("type", types)} ${quoted(types)}`,
  );
};

const runAsNonRoot: Rule = (pod) => {
  const own = pod.spec.securityContext?.runAsNonRoot;
  const explicit = namesWhere(pod, (c) => c.securityContext?.runAsNonRoot === false);
  const implicit = own === true ? [] : namesWhere(pod, (c) => c.securityContext?.runAsNonRoot === undefined);
  if (own === false || explicit.length > 0) {
    const isOwnBad = own === false;
    return violation(
      "runAsNonRoot != true",
      `${who(isOwnBad, explicit)} must not set securityContext.runAsNonRoot=false`,
    );
  }
  if (implicit.length === 0) return undefined;
  return violation("runAsNonRoot != true", `pod or ${containers(implicit)} must set securityContext.runAsNonRoot=true`);
};

const runAsUser: Rule = (pod) => {
  const isOwn = pod.spec.securityContext?.runAsUser === 0;
  const names = namesWhere(pod, (c) => c.securityContext?.runAsUser === 0);
  if (!isOwn && names.length === 0) return undefined;
  return violation("runAsUser=0", `${who(isOwn, names)} must not set runAsUser=0`);
};

const seccompRestricted: Rule = (pod, minor) => {
  if (minor >= 25 && isWindows(pod)) return undefined;
  const own = pod.spec.securityContext?.seccompProfile?.type;
  const type = (c: AnyContainer) => c.securityContext?.seccompProfile?.type;
  const names = namesWhere(pod, (c) => !maySeccomp(type(c)));
  if (!maySeccomp(own) || names.length > 0) return seccompBaseline(pod, minor);
  const implicit = own === undefined ? namesWhere(pod, (c) => type(c) === undefined) : [];
  if (implicit.length === 0) return undefined;
  return violation(
    "seccompProfile",
    `pod or ${containers(implicit)} must set securityContext.seccompProfile.type to "RuntimeDefault" or "Localhost"`,
  );
};

const checks: readonly Check[] = [
  { id: "appArmorProfile", level: "baseline", since: 0, rule: appArmorProfile },
  { id: "capabilities_baseline", level: "baseline", since: 0, rule: capabilitiesBaseline },
  { id: "hostNamespaces", level: "baseline", since: 0, rule: hostNamespaces },
  { id: "hostPathVolumes", level: "baseline", since: 0, rule: hostPathVolumes },
  { id: "hostPorts", level: "baseline", since: 0, rule: hostPorts },
  { id: "privileged", level: "baseline", since: 0, rule: privilegedContainers },
  { id: "procMount", level: "baseline", since: 0, rule: procMount },
  { id: "seLinuxOptions", level: "baseline", since: 0, rule: seLinuxOptions },
  { id: "seccompProfile_baseline", level: "baseline", since: 0, rule: seccompBaseline },
  { id: "sysctls", level: "baseline", since: 0, rule: sysctls },
  { id: "windowsHostProcess", level: "baseline", since: 0, rule: windowsHostProcess },
  { id: "allowPrivilegeEscalation", level: "restricted", since: 8, rule: allowPrivilegeEscalation },
  {
    id: "capabilities_restricted",
    level: "restricted",
    since: 22,
    rule: capabilitiesRestricted,
    replaces: "capabilities_baseline",
  },
  { id: "restrictedVolumes", level: "restricted", since: 0, rule: restrictedVolumes, replaces: "hostPathVolumes" },
  { id: "runAsNonRoot", level: "restricted", since: 0, rule: runAsNonRoot },
  { id: "runAsUser", level: "restricted", since: 23, rule: runAsUser },
  {
    id: "seccompProfile_restricted",
    level: "restricted",
    since: 19,
    rule: seccompRestricted,
    replaces: "seccompProfile_baseline",
  },
];
