// The formats bodies and answers come in, beside JSON: where the codecs of the model are joined.
export { stringifyYaml } from "#wire/yaml.ts";

import type { UnknownObject } from "#model/object.ts";
import { encodeProtobuf as encode, hasProtobuf as has } from "#model/protobuf.ts";
export const encodeProtobuf = (object: UnknownObject): Uint8Array | undefined => encode(object);
export const hasProtobuf = (apiVersion: string, kind: string): boolean => has(apiVersion, kind);
