// Writes that several controllers make alike: deleting what may be gone already, and exchanging finalizers. Both name
// the very object that was looked at by its uid, so that a successor of the same name is left alone.
import type { Client, DeleteOptions } from "#client/client.ts";
import type { ApiObject } from "#model/object.ts";
import type { ResourceInfo } from "#model/resource-info.ts";
import { isNotFound } from "#model/status.ts";

/** False where it was gone already, which is as good. A successor of the same name is a Conflict. */
export async function deleteIfThere<T extends ApiObject>(
  client: Client,
  resource: ResourceInfo<T>,
  object: T,
  options: DeleteOptions = {},
): Promise<boolean> {
  const { name = "", namespace, uid } = object.metadata;
  const preconditions = { ...(uid === undefined ? {} : { uid }), ...options.preconditions };
  try {
    await client.delete(resource, { name, namespace }, { ...options, preconditions });
    return true;
  } catch (error) {
    if (!isNotFound(error)) throw error;
    return false;
  }
}

/** Against the revision they were read at; nothing is to be done where the object is gone. */
export async function writeFinalizers<T extends ApiObject>(
  client: Client,
  resource: ResourceInfo<T>,
  object: T,
  finalizers: readonly string[],
): Promise<void> {
  const { name = "", namespace, uid, resourceVersion } = object.metadata;
  try {
    await client.patch(resource, { name, namespace }, { metadata: { uid, resourceVersion, finalizers } });
  } catch (error) {
    if (!isNotFound(error)) throw error;
  }
}

/** Takes one finalizer off, where the object carries it. */
export async function dropFinalizer<T extends ApiObject>(
  client: Client,
  resource: ResourceInfo<T>,
  object: T,
  finalizer: string,
): Promise<void> {
  const { finalizers = [] } = object.metadata;
  if (!finalizers.includes(finalizer)) return;
  const rest = finalizers.filter((one) => one !== finalizer);
  await writeFinalizers(client, resource, object, rest);
}
