// What S3 says in XML: lists, upload ids, errors. The few elements that are needed are picked out of a bounded text; what
// is not there is undefined, so that an answer of something else (a proxy's page) reads as an answer that says nothing.

export interface S3Object {
  readonly key: string;
  readonly sizeBytes: number;
  readonly modifiedMs: number;
}

export interface S3Page {
  readonly objects: readonly S3Object[];
  /** Asks for the next page; undefined on the last. */
  readonly next: string | undefined;
}

/** An answer to ListObjectsV2 with encoding-type=url; undefined when the text is none. */
export function readPage(xml: string): S3Page | undefined {
  if (!/<ListBucketResult[\s>]/.test(xml)) return undefined;
  const isEncoded = elementOf(xml, "EncodingType") === "url";
  const objects = [...xml.matchAll(/<Contents>([\s\S]*?)<\/Contents>/g)].map(([, inner = ""]) => {
    const key = elementOf(inner, "Key") ?? "";
    return {
      key: isEncoded ? decodeURIComponent(key.replaceAll("+", " ")) : key,
      sizeBytes: Number(elementOf(inner, "Size") ?? 0),
      modifiedMs: Date.parse(elementOf(inner, "LastModified") ?? "") || 0,
    };
  });
  const more = elementOf(xml, "IsTruncated") === "true";
  return { objects, next: more ? elementOf(xml, "NextContinuationToken") : undefined };
}

export const readUploadId = (xml: string): string | undefined => elementOf(xml, "UploadId");

export interface S3ErrorText {
  readonly code: string;
  readonly message: string;
  readonly region: string | undefined;
}

export function readError(xml: string): S3ErrorText | undefined {
  const inner = /<Error>([\s\S]*)<\/Error>/.exec(xml)?.[1];
  if (inner === undefined) return undefined;
  return {
    code: elementOf(inner, "Code") ?? "",
    message: elementOf(inner, "Message") ?? "",
    region: elementOf(inner, "Region"),
  };
}

/** Ends a multipart upload: the tags of its parts, in order. */
export function completeUpload(tags: readonly string[]): string {
  const parts = tags.map((tag, i) => `<Part><PartNumber>${i + 1}</PartNumber><ETag>${escapeXml(tag)}</ETag></Part>`);
  return `<CompleteMultipartUpload>${parts.join("")}</CompleteMultipartUpload>`;
}

const elementOf = (xml: string, name: string): string | undefined => {
  const text = new RegExp(`<${name}>([^<]*)</${name}>`).exec(xml)?.[1];
  return text === undefined ? undefined : unescapeXml(text);
};

const entities: Readonly<Record<string, string>> = { amp: "&", lt: "<", gt: ">", quot: '"', apos: "'" };
const unescapeXml = (text: string): string =>
  text.replace(/&(?:#x([0-9a-f]{1,6})|#(\d{1,7})|(\w{2,4}));/gi, (whole, hex?: string, decimal?: string, name = "") => {
    if (!hex && !decimal) return entities[name] ?? whole;
    const code = hex ? Number.parseInt(hex, 16) : Number(decimal);
    return code <= 0x10ffff ? String.fromCodePoint(code) : whole;
  });
const escapeXml = (text: string): string =>
  text.replace(/[<>&"]/g, (c) => ({ "<": "&lt;", ">": "&gt;", "&": "&amp;", '"': "&quot;" })[c]!);
