// metav1.Status as an exception: every API failure in mote is an ApiError, made by one of the functions below with
// upstream's code, reason and wording (source: the API conventions, "Response Status Kind", and observed answers of
// kube-apiserver 1.32).

export interface StatusCause {
  reason?: string;
  message?: string;
  /** JSON path of the field, as in `spec.containers[0].name`. */
  field?: string;
}

export interface StatusDetails {
  name?: string;
  group?: string;
  kind?: string;
  uid?: string;
  causes?: StatusCause[];
  retryAfterSeconds?: number;
}

export interface Status {
  kind: "Status";
  apiVersion: "v1";
  metadata: { continue?: string; resourceVersion?: string };
  status: "Success" | "Failure";
  message?: string;
  reason?: string;
  details?: StatusDetails;
  code?: number;
}

export class ApiError extends Error {
  override readonly name = "ApiError";
  readonly status: Status;
  constructor(
    code: number,
    reason: string,
    message: string,
    details?: StatusDetails,
    metadata: Status["metadata"] = {},
  ) {
    super(message);
    this.status = {
      kind: "Status",
      apiVersion: "v1",
      metadata,
      status: "Failure",
      message,
      ...(reason === "" ? {} : { reason }),
      ...(details ? { details } : {}),
      code,
    };
  }
  get code(): number {
    return this.status.code ?? 500;
  }
  get reason(): string {
    return this.status.reason ?? "";
  }
  /** Rebuilds the error from a Status body that came over the wire. */
  static from(status: Status): ApiError {
    return new ApiError(status.code ?? 500, status.reason ?? "", status.message ?? "", status.details, status.metadata);
  }
}

export const isApiError = (error: unknown, reason?: string): error is ApiError =>
  error instanceof ApiError && (reason === undefined || error.reason === reason);
export const isNotFound = (error: unknown): error is ApiError => isApiError(error, "NotFound");
export const isConflict = (error: unknown): error is ApiError => isApiError(error, "Conflict");
export const isAlreadyExists = (error: unknown): error is ApiError => isApiError(error, "AlreadyExists");

/** What a Status says it is about: `resource` is the plural, `kind` in details is the plural too (as upstream). */
export interface About {
  readonly group: string;
  readonly resource: string;
}
const qualified = (about: About) => (about.group === "" ? about.resource : `${about.resource}.${about.group}`);
const detailsOf = (about: About, name?: string): StatusDetails => ({
  ...(name === undefined || name === "" ? {} : { name }),
  ...(about.group === "" ? {} : { group: about.group }),
  kind: about.resource,
});

export const notFound = (about: About, name: string): ApiError =>
  new ApiError(404, "NotFound", `${qualified(about)} "${name}" not found`, detailsOf(about, name));
/** No such path. */
export const pathNotFound = (): ApiError =>
  new ApiError(404, "NotFound", "the server could not find the requested resource", {});
export const alreadyExists = (about: About, name: string): ApiError =>
  new ApiError(409, "AlreadyExists", `${qualified(about)} "${name}" already exists`, detailsOf(about, name));
export const conflict = (about: About, name: string, why: string): ApiError =>
  new ApiError(
    409,
    "Conflict",
    `Operation cannot be fulfilled on ${qualified(about)} "${name}": ${why}`,
    detailsOf(about, name),
  );
export const staleUpdate =
  "the object has been modified; please apply your changes to the latest version and try again";
export const forbidden = (about: About, name: string, why: string): ApiError =>
  new ApiError(
    403,
    "Forbidden",
    name === "" ? `${qualified(about)} is forbidden: ${why}` : `${qualified(about)} "${name}" is forbidden: ${why}`,
    detailsOf(about, name),
  );
export const badRequest = (message: string): ApiError => new ApiError(400, "BadRequest", message);
export const unauthorized = (): ApiError => new ApiError(401, "Unauthorized", "Unauthorized");
export const methodNotAllowed = (message: string, about?: About): ApiError =>
  new ApiError(405, "MethodNotAllowed", message, about ? detailsOf(about) : {});
export const notAcceptable = (message: string): ApiError => new ApiError(406, "NotAcceptable", message);
export const unsupportedMediaType = (message: string): ApiError => new ApiError(415, "UnsupportedMediaType", message);
export const requestTooLarge = (message: string): ApiError => new ApiError(413, "RequestEntityTooLarge", message);
export const expired = (message: string): ApiError => new ApiError(410, "Expired", message);
export const timeout = (message: string, retryAfterSeconds = 0): ApiError =>
  new ApiError(504, "Timeout", `Timeout: ${message}`, retryAfterSeconds > 0 ? { retryAfterSeconds } : {});
export const tooManyRequests = (message: string, retryAfterSeconds: number): ApiError =>
  new ApiError(429, "TooManyRequests", message, { retryAfterSeconds });
export const serviceUnavailable = (message: string): ApiError => new ApiError(503, "ServiceUnavailable", message);
export const internalError = (message: string): ApiError =>
  new ApiError(500, "InternalError", `Internal error occurred: ${message}`, { causes: [{ message }] });

/** One validation failure; made by the functions below so that texts match upstream's field.Error. */
export interface FieldError {
  /** FieldValueRequired, FieldValueInvalid, FieldValueNotSupported, FieldValueForbidden, FieldValueDuplicate, FieldValueTooLong, FieldValueTooMany, FieldValueNotFound, FieldValueTypeInvalid. */
  readonly reason: string;
  readonly field: string;
  readonly message: string;
}
const show = (value: unknown): string => JSON.stringify(value) ?? "null";
export const fieldRequired = (field: string, detail = ""): FieldError => ({
  reason: "FieldValueRequired",
  field,
  message: detail === "" ? "Required value" : `Required value: ${detail}`,
});
export const fieldInvalid = (field: string, value: unknown, detail: string): FieldError => ({
  reason: "FieldValueInvalid",
  field,
  message: `Invalid value: ${show(value)}: ${detail}`,
});
export const fieldNotSupported = (field: string, value: unknown, supported: readonly string[]): FieldError => ({
  reason: "FieldValueNotSupported",
  field,
  message: `Unsupported value: ${show(value)}: supported values: ${[...supported].sort().map(show).join(", ")}`,
});
export const fieldForbidden = (field: string, detail: string): FieldError => ({
  reason: "FieldValueForbidden",
  field,
  message: `Forbidden: ${detail}`,
});
export const fieldDuplicate = (field: string, value: unknown): FieldError => ({
  reason: "FieldValueDuplicate",
  field,
  message: `Duplicate value: ${show(value)}`,
});
export const fieldTooLong = (field: string, max: number): FieldError => ({
  reason: "FieldValueTooLong",
  field,
  message: `Too long: may not be more than ${max} bytes`,
});
export const fieldTooMany = (field: string, count: number, max: number): FieldError => ({
  reason: "FieldValueTooMany",
  field,
  message: `Too many: ${count}: must have at most ${max} items`,
});
export const fieldNotFound = (field: string, value: unknown): FieldError => ({
  reason: "FieldValueNotFound",
  field,
  message: `Not found: ${show(value)}`,
});

/**
 * Causes of one answer, and letters of one cause and of the message they are joined to. A person reads the first few; what a
 * client can do about the rest it can do after those are mended. Upstream has no such ends.
 */
export const maxCauses = 1_000;
const maxCauseLength = 16 * 1024;
const maxMessageLength = 256 * 1024;

const shortened = (text: string, length: number): string =>
  text.length <= length ? text : `${text.slice(0, length)}... (${text.length - length} characters more)`;

/** 422 with a cause per error, worded as upstream: `Pod "x" is invalid: spec.containers: Required value`. */
export function invalid(group: string, kind: string, name: string, errors: readonly FieldError[]): ApiError {
  const causes = errors.slice(0, maxCauses).map(({ reason, message, field }) => ({
    reason,
    message: shortened(message, maxCauseLength),
    field: shortened(field, maxCauseLength),
  }));
  const lines: string[] = [];
  let length = 0;
  for (const { field, message } of causes) {
    if (length > maxMessageLength) break;
    lines.push(`${field}: ${message}`);
    length += field.length + message.length;
  }
  if (lines.length < errors.length) lines.push(`... (${errors.length - lines.length} errors more)`);
  const qualifiedKind = group === "" ? kind : `${kind}.${group}`;
  const text = lines.length === 1 ? lines[0]! : `[${lines.join(", ")}]`;
  return new ApiError(422, "Invalid", `${qualifiedKind} "${name}" is invalid: ${text}`, {
    ...(name === "" ? {} : { name }),
    ...(group === "" ? {} : { group }),
    ...(kind === "" ? {} : { kind }),
    causes,
  });
}
