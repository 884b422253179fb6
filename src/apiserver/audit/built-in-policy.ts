// What is told of where nobody has said otherwise: who changed something, who went into a pod, who was refused, what
// broke. Not told of: reads that worked, parts of the server's own process, and what operators write all day without
// anybody wanting to know (leases, events, status, questions about rights). Bodies are never kept.
import { qualifiedResource } from "#model/resource-info.ts";
import type { RequestInfo } from "../endpoints/request-info.ts";
import type { Choice, Decide } from "./policy.ts";

const always: Choice = {
  level: "Metadata",
  omitStages: new Set(["RequestReceived"]),
  omitManagedFields: true,
  onlyFailures: false,
};
const onlyFailures: Choice = { ...always, onlyFailures: true };

const changing = new Set(["create", "update", "patch", "delete", "deletecollection"]);
/** WebSocket clients open these with GET. */
const entering = new Set(["attach", "exec", "portforward"]);
const unremarkable = new Set([
  "leases.coordination.k8s.io",
  "events",
  "events.events.k8s.io",
  "tokenreviews.authentication.k8s.io",
  "selfsubjectreviews.authentication.k8s.io",
  "subjectaccessreviews.authorization.k8s.io",
  "localsubjectaccessreviews.authorization.k8s.io",
  "selfsubjectaccessreviews.authorization.k8s.io",
  "selfsubjectrulesreviews.authorization.k8s.io",
]);

export const builtInPolicy: Decide = (info) => (isRemarkable(info) ? always : onlyFailures);

function isRemarkable(info: RequestInfo): boolean {
  if (!info.isResource) return false;
  if (info.group === "" && info.resource === "pods" && entering.has(info.subresource)) return true;
  if (!changing.has(info.verb) || info.subresource === "status") return false;
  return !unremarkable.has(qualifiedResource({ group: info.group, plural: info.resource }));
}

/** Answers that say "you may not", "not so much" or "I cannot". */
export const isFailure = (code: number): boolean => code === 401 || code === 403 || code === 429 || code >= 500;
