// Which Pod Security Standard a namespace asks for, read from its labels. A version is a minor of v1.x or "latest".
// Pure. Upstream: staging/src/k8s.io/pod-security-admission/api.
import { type FieldError, fieldInvalid } from "#model/status.ts";

export type Level = "privileged" | "baseline" | "restricted";
export type Mode = "enforce" | "audit" | "warn";
export const modes: readonly Mode[] = ["enforce", "audit", "warn"];

export interface LevelVersion {
  readonly level: Level;
  /** As the label has it: "latest" or "v1.24". */
  readonly version: string;
}
export type Policy = Readonly<Record<Mode, LevelVersion>>;

const prefix = "pod-security.kubernetes.io/";
const levels: readonly string[] = ["privileged", "baseline", "restricted"];
const privileged: LevelVersion = { level: "privileged", version: "latest" };

export interface ReadPolicy {
  readonly policy: Policy;
  readonly errors: readonly FieldError[];
}

/** Labels that cannot be understood count as restricted for `enforce`, and as absent for the others, as upstream. */
export function readPolicy(labels: Readonly<Record<string, string>> | undefined): ReadPolicy {
  const policy: Record<Mode, LevelVersion> = { enforce: privileged, audit: privileged, warn: privileged };
  const errors: FieldError[] = [];
  for (const mode of modes) {
    const level = labels?.[prefix + mode];
    const version = labels?.[`${prefix}${mode}-version`];
    let found = privileged;
    if (level !== undefined) {
      if (levels.includes(level)) found = { ...found, level: level as Level };
      else {
        const why = `must be one of ${levels.join(", ")}`;
        errors.push(fieldInvalid(`metadata.labels[${prefix}${mode}]`, level, why));
        if (mode === "enforce") found = { ...found, level: "restricted" };
      }
    }
    if (version !== undefined) {
      if (isVersion(version)) found = { ...found, version };
      else {
        const why = 'must be "latest" or "v1.x"';
        errors.push(fieldInvalid(`metadata.labels[${prefix}${mode}-version]`, version, why));
      }
    }
    policy[mode] = found;
  }
  // A namespace that enforces something warns of it too, where it does not say otherwise.
  const { enforce } = policy;
  if (labels?.[`${prefix}warn`] === undefined && rank(enforce.level) > rank(policy.warn.level)) policy.warn = enforce;
  return { policy, errors };
}

const isVersion = (text: string): boolean => text === "latest" || /^v1\.(0|[1-9][0-9]{0,3})$/.test(text);
export const rank = (level: Level): number => levels.indexOf(level);
/** The minor; later ones and "latest" are the newest rules there are. */
export const minorOf = ({ version }: LevelVersion): number =>
  version === "latest" ? Number.MAX_SAFE_INTEGER : Number(version.slice("v1.".length));

export const isFullyPrivileged = (policy: Policy): boolean =>
  modes.every((mode) => policy[mode].level === "privileged");
export const isSamePolicy = (a: LevelVersion, b: LevelVersion): boolean =>
  a.level === b.level && a.version === b.version;
export const showPolicy = ({ level, version }: LevelVersion): string => `${level}:${version}`;
