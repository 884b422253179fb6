// Which representation of an answer the client wants: Accept with its parameters, and which format a body is in. Pure.
// Upstream counterpart: endpoints/handlers/negotiation.
import { notAcceptable, unsupportedMediaType } from "#model/status.ts";

export type Format = "json" | "yaml" | "protobuf" | "cbor";
export type Shape = "object" | "table" | "metadata";

export interface Representation {
  readonly format: Format;
  readonly shape: Shape;
  /** Of meta.k8s.io for tables and metadata. */
  readonly metaVersion: "v1" | "v1beta1";
  readonly pretty: boolean;
}

export const contentTypes: Readonly<Record<Format, string>> = {
  json: "application/json",
  yaml: "application/yaml",
  protobuf: "application/vnd.kubernetes.protobuf",
  cbor: "application/cbor",
};

export interface MediaRange {
  readonly type: string;
  readonly parameters: Readonly<Record<string, string>>;
  readonly quality: number;
}

/** Ranges of an Accept header, best first. At most 32 are looked at. */
export function parseAccept(header: string): MediaRange[] {
  const ranges: MediaRange[] = [];
  for (const part of header.split(",").slice(0, 32)) {
    const [type = "", ...rest] = part.split(";").map((piece) => piece.trim());
    if (type === "") continue;
    const parameters: Record<string, string> = {};
    for (const piece of rest) {
      const equals = piece.indexOf("=");
      if (equals > 0)
        parameters[piece.slice(0, equals).trim().toLowerCase()] = piece
          .slice(equals + 1)
          .trim()
          .replace(/^"|"$/g, "");
    }
    const quality = Number(parameters["q"] ?? "1");
    ranges.push({ type: type.toLowerCase(), parameters, quality: Number.isFinite(quality) ? quality : 0 });
  }
  return ranges.filter((r) => r.quality > 0).sort((a, b) => b.quality - a.quality);
}

const formatOf: Readonly<Record<string, Format>> = {
  "application/json": "json",
  "*/*": "json",
  "application/*": "json",
  "application/yaml": "yaml",
  "application/vnd.kubernetes.protobuf": "protobuf",
  "application/cbor": "cbor",
};

/** What the server speaks beyond what every server does. */
export interface Formats {
  /** Behind the feature gate CBORServingAndStorage. */
  readonly cbor: boolean;
}

export interface Offer {
  /** False for kinds without a protobuf message. */
  readonly protobuf: boolean;
  readonly cbor?: boolean;
  /** Table and PartialObjectMetadata are served. */
  readonly transforms: boolean;
  readonly stream?: boolean;
}

export function negotiate(accept: string | undefined, offer: Offer, pretty: boolean): Representation {
  const header = accept === undefined || accept.trim() === "" ? "*/*" : accept;
  for (const { type, parameters } of parseAccept(header)) {
    const format = formatOf[type];
    if (!format || (format === "protobuf" && !offer.protobuf) || (format === "cbor" && !offer.cbor)) continue;
    const as = parameters["as"];
    if (as === undefined) return { format, shape: "object", metaVersion: "v1", pretty };
    const version = parameters["v"];
    if (!offer.transforms || parameters["g"] !== "meta.k8s.io" || (version !== "v1" && version !== "v1beta1")) continue;
    if (as === "Table" && format !== "protobuf") return { format, shape: "table", metaVersion: version, pretty };
    if (as === "PartialObjectMetadata" || as === "PartialObjectMetadataList") {
      return { format, shape: "metadata", metaVersion: version, pretty };
    }
  }
  throw notAcceptable(`only the following media types are accepted: ${mediaTypes(offer)}`);
}

function mediaTypes({ protobuf, cbor }: Offer): string {
  const all = [contentTypes.json, contentTypes.yaml];
  if (protobuf) all.push(contentTypes.protobuf);
  if (cbor) all.push(contentTypes.cbor);
  return all.join(", ");
}

/** The format of a body. No header means JSON. */
export function bodyFormat(contentType: string | undefined, formats: Formats): Format {
  const type = (contentType ?? "").split(";")[0]!.trim().toLowerCase();
  if (type === "" || type === "application/json") return "json";
  if (type === "application/yaml" || type === "text/yaml" || type === "application/x-yaml") return "yaml";
  if (type === "application/vnd.kubernetes.protobuf") return "protobuf";
  if (type === "application/cbor" && formats.cbor) return "cbor";
  throw unsupportedMediaType(
    `the body of the request was in an unknown format - accepted media types include: ${mediaTypes({ protobuf: true, transforms: false, ...formats })}`,
  );
}

export function isPretty(query: URLSearchParams, userAgent: string | undefined): boolean {
  const asked = query.get("pretty");
  if (asked !== null) return asked === "" || asked === "1" || asked === "true";
  return userAgent !== undefined && /^(curl|Wget|Mozilla\/5\.0)/.test(userAgent);
}

export const acceptsGzip = (acceptEncoding: string | undefined): boolean => /\bgzip\b/.test(acceptEncoding ?? "");
