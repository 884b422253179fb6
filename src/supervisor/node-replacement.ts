// `mote node replace`: the owner lets another device have the name of a node, once and for a while: the card broke, the device
// was flashed again. The permission is a Secret; taking it is deleting it, so that only one can. Its time is counted on the
// API server's clock, from when it was made. No counterpart: with k3s the Node or its password must be deleted.
import type { Clock } from "#base/clock.ts";
import type { Client } from "#client/client.ts";
import type { Secret } from "#model/gen/core-v1.ts";
import { secrets } from "#model/resources.ts";
import { isConflict, isNotFound } from "#model/status.ts";
import { namespace, secretName } from "./join/secret-names.ts";

const secretType = "mote.local/node-replacement";
const lifeField = "life-seconds";
const permissionName = (node: string): string => `${node.toLowerCase()}.node-replacement.mote`;

/** In place of one that is there. False: nobody has that name. */
export async function givePermission(client: Client, node: string, lifeSeconds: number): Promise<boolean> {
  if (!(await hasPassword(client, node))) return false;
  await withdrawPermission(client, node);
  const secret: Secret = {
    ...{ apiVersion: "v1", kind: "Secret", type: secretType, immutable: true },
    metadata: { name: permissionName(node), namespace },
    data: { [lifeField]: Buffer.from(String(lifeSeconds)).toString("base64") },
  };
  await client.create(secrets, secret);
  return true;
}

async function hasPassword(client: Client, node: string): Promise<boolean> {
  try {
    await client.get(secrets, secretName(node), namespace);
    return true;
  } catch (error) {
    if (isNotFound(error)) return false;
    throw error;
  }
}

export async function withdrawPermission(client: Client, node: string): Promise<void> {
  try {
    await client.delete(secrets, { name: permissionName(node), namespace });
  } catch (error) {
    if (!isNotFound(error)) throw error;
  }
}

/** Whether there was one that is still good; it is gone then. */
export async function takePermission(
  node: string,
  { client, clock }: { readonly client: () => Client; readonly clock: Clock },
): Promise<boolean> {
  try {
    const { metadata, data, type } = await client().get(secrets, permissionName(node), namespace);
    if (type !== secretType) return false;
    const lifeMs = Number(Buffer.from(data?.[lifeField] ?? "", "base64").toString("utf8")) * 1000;
    const ageMs = clock.now() - Date.parse(metadata.creationTimestamp ?? "");
    const uid = metadata.uid ?? "";
    await client().delete(secrets, { name: permissionName(node), namespace }, { preconditions: { uid } });
    // RFC 3339 has whole seconds; a clock that went back says nothing.
    return ageMs > -60_000 && ageMs < lifeMs;
  } catch (error) {
    if (isNotFound(error) || isConflict(error)) return false;
    throw error;
  }
}
