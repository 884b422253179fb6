// ComponentStatus, which `kubectl get cs` still asks for: the parts live in the process that answers, so the one thing
// that can be away is the datastore. Upstream counterpart: pkg/registry/core/componentstatus.
import { messageOf } from "#base/errors.ts";
import type { UnknownObject } from "#model/object.ts";
import type { ResourceInfo } from "#model/resource-info.ts";
import { notFound } from "#model/status.ts";
import type { RequestInfo } from "./request-info.ts";
import type { HandlerRequest, Result } from "./result.ts";
import type { HealthCheck } from "./system.ts";

const parts = ["scheduler", "controller-manager", "etcd-0"];

export async function answerComponentStatuses(
  row: ResourceInfo,
  info: RequestInfo,
  request: HandlerRequest,
  checks: readonly HealthCheck[],
): Promise<Result> {
  request.warn("v1 ComponentStatus is deprecated in v1.19+");
  request.audit?.annotate("k8s.io/deprecated", "true");
  const name = info.verb === "get" ? info.name : undefined;
  const wanted = parts.filter((part) => name === undefined || part === name);
  if (name !== undefined && wanted.length === 0) throw notFound({ group: "", resource: row.plural }, name);
  const objects = await Promise.all(wanted.map((part) => statusOf(row, part, checks)));
  return { type: "objects", info: row, objects, isList: name === undefined };
}

async function statusOf(row: ResourceInfo, part: string, checks: readonly HealthCheck[]): Promise<UnknownObject> {
  let problem: string | undefined;
  try {
    if (part === "etcd-0") await checks.find((check) => check.name === "etcd")?.check();
  } catch (error) {
    problem = messageOf(error);
  }
  const healthy = { type: "Healthy", status: "True", message: "ok" };
  const condition = problem === undefined ? healthy : { type: "Healthy", status: "False", error: problem };
  return { kind: row.kind, apiVersion: row.version, metadata: { name: part }, conditions: [condition] };
}
