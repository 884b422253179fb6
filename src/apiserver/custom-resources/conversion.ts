// From one version of a custom resource to another: by name only, or by a webhook that is asked over HTTPS with a
// ConversionReview for many objects at a time. A webhook may change labels and annotations of metadata, nothing else.
// Upstream counterpart: apiextensions apiserver/conversion.
import { Buffer } from "node:buffer";
import type { Random } from "#base/clock.ts";
import { messageOf } from "#base/errors.ts";
import type { CustomResourceDefinition, WebhookClientConfig } from "#model/custom-resources.ts";
import type { UnknownObject } from "#model/object.ts";
import { equalJson, isObject } from "#model/patch/json-value.ts";
import { ApiError, internalError } from "#model/status.ts";
import { createHttpClient, type HttpClient, readBody } from "#platform/http-client.ts";

export interface ConversionDeps {
  readonly random: Random;
  /** Where a service can be reached: host and port. Rejects with what to say. */
  readonly serviceAddress: (namespace: string, name: string, port: number) => Promise<{ host: string; port: number }>;
}

export interface Converter {
  /** Objects of other versions in `apiVersion`, in order; objects are ours to change. */
  convert(objects: readonly UnknownObject[], apiVersion: string): Promise<UnknownObject[]>;
  close(): void;
}

/** Upstream's. */
const timeoutMs = 30_000;
/** As large as any list that can be asked for in one go. */
const maxAnswerBytes = 64 * 1024 * 1024;
const objectsPerCall = 500;
const defaultPort = 443;

export function createConverter(definition: CustomResourceDefinition, deps: ConversionDeps): Converter {
  const { conversion } = definition.spec;
  const config = conversion?.strategy === "Webhook" ? conversion.webhook?.clientConfig : undefined;
  if (!config) {
    return { convert: async (objects, apiVersion) => objects.map((object) => ({ ...object, apiVersion })), close() {} };
  }
  const webhook = new Webhook(definition, config, deps);
  return {
    async convert(objects, apiVersion) {
      const out: UnknownObject[] = [];
      for (let at = 0; at < objects.length; at += objectsPerCall) {
        out.push(...(await webhook.convert(objects.slice(at, at + objectsPerCall), apiVersion)));
      }
      return out;
    },
    close: () => webhook.close(),
  };
}

class Webhook {
  readonly #definition: CustomResourceDefinition;
  readonly #config: WebhookClientConfig;
  readonly #deps: ConversionDeps;
  /** By base URL: a service may move. */
  #client: { readonly url: string; readonly http: HttpClient } | undefined;

  constructor(definition: CustomResourceDefinition, config: WebhookClientConfig, deps: ConversionDeps) {
    this.#definition = definition;
    this.#config = config;
    this.#deps = deps;
  }

  close(): void {
    this.#client?.http.close();
    this.#client = undefined;
  }

  async convert(objects: readonly UnknownObject[], apiVersion: string): Promise<UnknownObject[]> {
    const from = objects[0]?.apiVersion ?? "";
    const { kind } = this.#definition.spec.names;
    const fail = (why: string): ApiError =>
      internalErrorOf(`conversion webhook for ${from}, Kind=${kind} failed: ${why}`);
    const uid = this.#deps.random.uuid();
    const review = {
      kind: "ConversionReview",
      apiVersion: "apiextensions.k8s.io/v1",
      request: { uid, desiredAPIVersion: apiVersion, objects },
    };
    let answer: unknown;
    try {
      answer = await this.#post(JSON.stringify(review));
    } catch (error) {
      throw fail(messageOf(error));
    }
    const response = isObject(answer) && isObject(answer["response"]) ? answer["response"] : undefined;
    if (!response) throw fail("invalid response: no response");
    if (response["uid"] !== uid) {
      throw fail(
        `invalid response: expected response.uid=${JSON.stringify(uid)}, got ${JSON.stringify(response["uid"] ?? "")}`,
      );
    }
    const result = isObject(response["result"]) ? response["result"] : {};
    if (result["status"] !== "Success") {
      const message = typeof result["message"] === "string" && result["message"] !== "" ? result["message"] : undefined;
      throw fail(message ?? `response.result.status was '${String(result["status"] ?? "")}', not 'Success'`);
    }
    const converted: unknown = response["convertedObjects"];
    if (!Array.isArray(converted) || converted.length !== objects.length) {
      const count = Array.isArray(converted) ? converted.length : 0;
      throw fail(`invalid response: returned ${count} objects, expected ${objects.length}`);
    }
    return objects.map((object, index) => accept(object, converted[index], apiVersion, kind, index, fail));
  }

  async #post(body: string): Promise<unknown> {
    const { service, url } = this.#config;
    let path = service?.path ?? "/";
    let base: string;
    if (service) {
      const { host, port } = await this.#deps.serviceAddress(
        service.namespace,
        service.name,
        service.port ?? defaultPort,
      );
      base = `https://${host.includes(":") ? `[${host}]` : host}:${port}`;
    } else {
      const parsed = new URL(url ?? "");
      base = parsed.origin;
      path = parsed.pathname + parsed.search;
    }
    if (this.#client?.url !== base) {
      this.close();
      this.#client = { url: base, http: this.#connect(base) };
    }
    const response = await this.#client!.http.send({
      method: "POST",
      path,
      headers: { "content-type": "application/json", accept: "application/json" },
      body,
      idleTimeoutMs: timeoutMs,
    });
    const text = (await readBody(response, maxAnswerBytes)).toString("utf8");
    if (response.status < 200 || response.status > 299) throw new Error(`the webhook answered ${response.status}`);
    return JSON.parse(text) as unknown;
  }

  #connect(baseUrl: string): HttpClient {
    const { service, caBundle } = this.#config;
    return createHttpClient({
      baseUrl,
      ...(caBundle ? { ca: Buffer.from(caBundle, "base64") } : {}),
      ...(service ? { serverName: `${service.name}.${service.namespace}.svc` } : {}),
    });
  }
}

const internalErrorOf = (message: string): ApiError => {
  const error = internalError(message);
  return new ApiError(500, "InternalError", message, error.status.details);
};

/** What a webhook may not have changed. */
function accept(
  object: UnknownObject,
  converted: unknown,
  apiVersion: string,
  kind: string,
  index: number,
  fail: (why: string) => ApiError,
): UnknownObject {
  const where = `invalid converted object at index ${index}`;
  if (!isObject(converted)) throw fail(`${where}: not an object`);
  if (converted["apiVersion"] !== apiVersion) {
    throw fail(`${where}: invalid groupVersion, expected=${apiVersion}, got=${String(converted["apiVersion"] ?? "")}`);
  }
  if (converted["kind"] !== kind) {
    throw fail(`${where}: invalid kind, expected=${kind}, got=${String(converted["kind"] ?? "")}`);
  }
  const metadata = converted["metadata"];
  if (!isObject(metadata)) throw fail(`${where}: metadata is missing`);
  for (const field of ["name", "namespace", "uid"] as const) {
    if ((metadata[field] ?? "") !== (object.metadata[field] ?? "")) {
      throw fail(`${where}: expected unchanged metadata.${field}, got ${JSON.stringify(metadata[field])}`);
    }
  }
  const { labels: _labels, annotations: _annotations, ...kept } = object.metadata;
  for (const [name, value] of Object.entries({ labels: metadata["labels"], annotations: metadata["annotations"] })) {
    if (value === undefined || value === null) continue;
    if (!isObject(value) || !Object.values(value).every((text) => typeof text === "string")) {
      throw fail(`${where}: metadata.${name} is no map of texts`);
    }
    if (!equalJson(value, {})) (kept as Record<string, unknown>)[name] = value;
  }
  return { ...converted, apiVersion, kind, metadata: kept } as UnknownObject;
}
