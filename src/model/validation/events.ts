// What events.k8s.io asks of an event beside what both groups ask (cluster.ts): one that says when it was, of a known type,
// without the fields of the older group, and of which only the series changes. Upstream: pkg/apis/core/validation/events.go.
import type { Event } from "../gen/core-v1.ts";
import { type FieldError, fieldInvalid, fieldRequired } from "../status.ts";
import { same, unchanged } from "./checks.ts";

const types = ["Normal", "Warning"];

/** As stored, so in the words of the core group. */
export function validateNewEvent(event: Event): FieldError[] {
  const errors: FieldError[] = [];
  if (!event.eventTime) errors.push(fieldRequired("eventTime"));
  errors.push(...validateSeries(event));
  if (!types.includes(event.type ?? "")) {
    errors.push(fieldInvalid("type", "", `has invalid value: ${event.type ?? ""}`));
  }
  const { firstTimestamp, lastTimestamp, count, source } = event;
  const older = { firstTimestamp, lastTimestamp, count, source: source?.component || source?.host };
  for (const [field, value] of Object.entries(older)) {
    if (value) errors.push(fieldInvalid(field, "", "needs to be unset"));
  }
  return errors;
}

const fixed = [
  "involvedObject",
  "reason",
  "message",
  "source",
  "firstTimestamp",
  "lastTimestamp",
  "count",
  "type",
  "eventTime",
  "action",
  "related",
] as const;

export function validateNewEventUpdate(event: Event, old: Event): FieldError[] {
  return [
    ...(same(event.series, old.series) ? [] : validateSeries(event)),
    ...fixed.flatMap((field) => unchanged(field, event[field], old[field])),
    ...unchanged("reportingController", event.reportingComponent, old.reportingComponent),
    ...unchanged("reportingInstance", event.reportingInstance, old.reportingInstance),
  ];
}

function validateSeries({ series }: Event): FieldError[] {
  if (!series) return [];
  const errors: FieldError[] = [];
  if ((series.count ?? 0) < 2) errors.push(fieldInvalid("series.count", "", "should be at least 2"));
  if (!series.lastObservedTime) errors.push(fieldRequired("series.lastObservedTime"));
  return errors;
}
