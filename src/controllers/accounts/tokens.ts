// Secrets of type service-account-token: whoever makes one gets a token of that account in it, which lives as long as the
// secret. It is a token bound to the secret, asked for like any other, so nothing here holds a key.
// Upstream counterpart: pkg/controller/serviceaccount/tokens_controller.go.
import type { Service } from "#base/service.ts";
import type { Secret, ServiceAccount } from "#model/gen/core-v1.ts";
import { type ApiObject, isDeleting, keyOf, nameOf, namespaceOf, uidOf } from "#model/object.ts";
import { secrets, serviceAccounts } from "#model/resources.ts";
import { isNotFound } from "#model/status.ts";
import { type ControllerDeps, createController, isNamespaceTerminating, on } from "../runtime/controller.ts";
import { deleteIfThere } from "../runtime/writes.ts";

const nameAnnotation = "kubernetes.io/service-account.name";
const uidAnnotation = "kubernetes.io/service-account.uid";
const scope = { fieldSelector: "type=kubernetes.io/service-account-token" };
const accountIndex = "account";
/** The longest that may be asked for. */
const lifetimeSeconds = 2 ** 32;

const base64 = (text: string): string => Buffer.from(text, "utf8").toString("base64");

export function createTokenSecretController(deps: ControllerDeps, options: { readonly rootCa: string }): Service {
  const { client } = deps;
  const store = deps.informers.informer(secrets, scope);
  const accountStore = deps.informers.informer(serviceAccounts);
  const accountKey = (secret: Secret): string =>
    `${namespaceOf(secret)}/${secret.metadata.annotations?.[nameAnnotation] ?? ""}`;
  store.addIndex(accountIndex, (secret) => [accountKey(secret)]);

  /** As the API says, where the store shows none: it may be behind. */
  async function accountOf(secret: Secret): Promise<ServiceAccount | undefined> {
    const known = accountStore.get(accountKey(secret));
    if (known) return known;
    try {
      return await client.get(
        serviceAccounts,
        secret.metadata.annotations?.[nameAnnotation] ?? "",
        namespaceOf(secret),
      );
    } catch (error) {
      if (isNotFound(error)) return undefined;
      throw error;
    }
  }

  async function tokenFor(secret: Secret, account: ServiceAccount): Promise<string> {
    const boundObjectRef = { kind: "Secret", apiVersion: "v1", name: nameOf(secret), uid: uidOf(secret) };
    const request = {
      apiVersion: "authentication.k8s.io/v1",
      kind: "TokenRequest",
      metadata: { namespace: namespaceOf(account) },
      spec: { audiences: [], expirationSeconds: lifetimeSeconds, boundObjectRef },
    };
    const options = { name: nameOf(account), subresource: "token" };
    const answer = await client.create<ApiObject & { status?: { token?: string } }, ServiceAccount>(
      serviceAccounts,
      request,
      options,
    );
    if (!answer.status?.token) throw new Error("the API issued no token");
    return answer.status.token;
  }

  async function sync(key: string): Promise<void> {
    const secret = store.get(key);
    if (!secret || isDeleting(secret)) return;
    const account = await accountOf(secret);
    const asked = secret.metadata.annotations?.[uidAnnotation] ?? "";
    if (!account || (asked !== "" && asked !== uidOf(account))) {
      await deleteIfThere(client, secrets, secret);
      return;
    }
    const data = secret.data ?? {};
    const fixed = { "ca.crt": base64(options.rootCa), namespace: base64(namespaceOf(secret)) };
    const isWhole = data["token"] && data["ca.crt"] === fixed["ca.crt"] && data["namespace"] && asked !== "";
    if (isWhole) return;
    const token = data["token"] ?? base64(await tokenFor(secret, account));
    const annotations = { ...secret.metadata.annotations, [uidAnnotation]: uidOf(account) };
    await client.update(secrets, {
      ...secret,
      metadata: { ...secret.metadata, annotations },
      data: { ...data, ...fixed, token },
    });
  }

  return createController(
    {
      name: "serviceaccount-token-controller",
      workers: 1,
      triggers: [on(store), on(accountStore, (account) => store.byIndex(accountIndex, keyOf(account)).map(keyOf))],
      async sync(key) {
        try {
          await sync(key);
        } catch (error) {
          // Gone is as good, and so is a namespace that goes.
          if (!isNotFound(error) && !isNamespaceTerminating(error)) throw error;
        }
      },
    },
    deps,
  );
}
