// What a list or a watch may ask for in its query: numbers as upstream parses them, and which options go together.
// Pure; every refusal is a 400 or 422 in upstream's words.
// Upstream counterpart: apimachinery's ListOptions validation (meta/internalversion/validation).
import { badRequest, type FieldError, fieldForbidden, fieldNotSupported, invalid } from "#model/status.ts";

export function parseRevision(value: string | null): number {
  if (value === null || value === "") return 0;
  const number = Number(value);
  if (!/^\d{1,19}$/.test(value))
    throw badRequest(`invalid resource version: strconv.ParseUint: parsing ${JSON.stringify(value)}: invalid syntax`);
  return number;
}

export function parseLimit(value: string | null): number {
  if (value === null || value === "") return 0;
  if (!/^-?\d{1,18}$/.test(value))
    throw badRequest(`strconv.ParseInt: parsing ${JSON.stringify(value)}: invalid syntax`);
  return Math.max(0, Number(value));
}

export function checkListOptions(query: URLSearchParams, watch: boolean): void {
  const errors: FieldError[] = [];
  const match = query.get("resourceVersionMatch") ?? "";
  const version = query.get("resourceVersion") ?? "";
  const sendInitial = query.get("sendInitialEvents");
  const forbiddenMatch = (why: string) => errors.push(fieldForbidden("resourceVersionMatch", why));
  if (watch) {
    if (sendInitial !== null && match === "")
      forbiddenMatch("sendInitialEvents requires setting resourceVersionMatch to NotOlderThan");
    else if (match !== "" && match !== "NotOlderThan") {
      forbiddenMatch("sendInitialEvents requires setting resourceVersionMatch to NotOlderThan");
    }
    if (sendInitial === null && match !== "")
      forbiddenMatch("resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided");
    if ((query.get("continue") ?? "") !== "" && sendInitial !== null) {
      errors.push(
        fieldForbidden("sendInitialEvents", "sendInitialEvents is forbidden for watch when continue is provided"),
      );
    }
  } else {
    if (sendInitial !== null)
      errors.push(fieldForbidden("sendInitialEvents", "sendInitialEvents is forbidden for list"));
    if (match !== "") {
      if (version === "") forbiddenMatch("resourceVersionMatch is forbidden unless resourceVersion is provided");
      if ((query.get("continue") ?? "") !== "")
        forbiddenMatch("resourceVersionMatch is forbidden when continue is provided");
      if (match !== "Exact" && match !== "NotOlderThan") {
        errors.push(fieldNotSupported("resourceVersionMatch", match, ["Exact", "NotOlderThan", ""]));
      }
      if (match === "Exact" && version === "0") {
        forbiddenMatch('resourceVersionMatch "exact" is forbidden for resourceVersion "0"');
      }
    }
  }
  if (errors.length > 0) throw invalid("meta.k8s.io", "ListOptions", "", errors);
}
