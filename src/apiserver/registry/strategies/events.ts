// Events of both groups; they share storage, so fields answer to the names of both. Upstream: pkg/registry/core/event.
import type { Event, ObjectReference } from "#model/gen/core-v1.ts";
import type { Strategy } from "../../strategy.ts";

/** The names of events.k8s.io/v1 for the same things. */
interface NewEvent {
  readonly regarding?: ObjectReference;
  readonly reportingController?: string;
  readonly deprecatedSource?: { readonly component?: string };
}

export const coreEvents: Strategy = {
  allowCreateOnUpdate: true,
  selectableFields(event: Event & NewEvent) {
    const about: ObjectReference = event.involvedObject ?? event.regarding ?? {};
    const controller = event.reportingComponent || event.reportingController || "";
    const source = (event.source ?? event.deprecatedSource)?.component || controller;
    const out: Record<string, string> = {
      reason: event.reason ?? "",
      type: event.type ?? "",
      source,
      reportingComponent: controller,
      reportingController: controller,
    };
    for (const field of ["kind", "namespace", "name", "uid", "apiVersion", "resourceVersion", "fieldPath"] as const) {
      out[`involvedObject.${field}`] = about[field] ?? "";
      out[`regarding.${field}`] = about[field] ?? "";
    }
    return out;
  },
};
