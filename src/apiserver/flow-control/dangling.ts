// Tells of each FlowSchema whether the priority level it names exists: its condition Dangling, and nothing else of it.
// Upstream counterpart: syncFlowSchemaStatus of util/flowcontrol/apf_controller.go.
import { type Clock, rfc3339 } from "#base/clock.ts";
import { isAbort, messageOf } from "#base/errors.ts";
import type { Logger } from "#base/log.ts";
import type { Service } from "#base/service.ts";
import type { Client } from "#client/client.ts";
import type { InformerFactory } from "#client/informer.ts";
import { WorkQueue } from "#client/workqueue.ts";
import type { FlowSchema, FlowSchemaCondition } from "#model/gen/flowcontrol-v1.ts";
import { flowSchemas, priorityLevelConfigurations } from "#model/resources.ts";
import { isConflict, isNotFound } from "#model/status.ts";

export interface DanglingDeps {
  readonly client: Client;
  readonly informers: InformerFactory;
  readonly clock: Clock;
  readonly log: Logger;
}

const fieldManager = "api-priority-and-fairness-config-consumer-v1";

/** Undefined: it says so already. */
export function danglingCondition(
  schema: FlowSchema,
  levelExists: boolean,
  nowMs: number,
): FlowSchemaCondition | undefined {
  const level = JSON.stringify(schema.spec.priorityLevelConfiguration.name);
  const about = `This FlowSchema references the PriorityLevelConfiguration object named ${level}`;
  const wanted = levelExists
    ? { type: "Dangling", status: "False", reason: "Found", message: `${about} and it exists` }
    : { type: "Dangling", status: "True", reason: "NotFound", message: `${about} but there is no such object` };
  const found = schema.status?.conditions?.find(({ type }) => type === "Dangling");
  if (found?.status === wanted.status && found.reason === wanted.reason && found.message === wanted.message)
    return undefined;
  const isSame = found?.status === wanted.status && found.lastTransitionTime !== undefined;
  return { ...wanted, lastTransitionTime: isSame ? found.lastTransitionTime! : rfc3339(nowMs) };
}

export function createDanglingController(deps: DanglingDeps): Service {
  const { client, informers, clock, log } = deps;
  const schemas = informers.informer(flowSchemas);
  const levels = informers.informer(priorityLevelConfigurations);
  return {
    name: "flow-schema-status",
    async run(signal, ready) {
      const queue = new WorkQueue({ name: "flow_schemas", minRetryMs: 1000, maxRetryMs: 60_000 }, { clock });
      const all = () => {
        for (const { metadata } of schemas.list()) queue.add(metadata.name ?? "");
      };
      const look = (schema: FlowSchema) => queue.add(schema.metadata.name ?? "");
      await Promise.all([schemas.whenSynced(signal), levels.whenSynced(signal)]);
      const forget = [schemas.addHandler({ add: look, update: look }), levels.addHandler({ add: all, delete: all })];
      ready();
      try {
        await queue.run(
          { workers: 1 },
          async (name) => {
            const schema = schemas.get(name);
            const level = schema?.spec.priorityLevelConfiguration.name ?? "";
            const condition = schema && danglingCondition(schema, levels.get(level) !== undefined, clock.now());
            if (!condition) return;
            try {
              const patch = { metadata: { uid: schema.metadata.uid }, status: { conditions: [condition] } };
              const type = "application/strategic-merge-patch+json";
              await client.patch(flowSchemas, { name }, patch, { subresource: "status", fieldManager, type });
            } catch (error) {
              // It went, or is another one now: its own event comes.
              if (isNotFound(error) || isConflict(error)) return;
              if (signal.aborted || isAbort(error, signal)) return;
              log.warn("cannot write the status of a flow schema", { name, error: messageOf(error) });
              queue.retry(name);
            }
          },
          signal,
        );
      } finally {
        for (const each of forget) each();
      }
    },
  };
}
