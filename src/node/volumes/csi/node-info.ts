// What the API knows of drivers on this node: CSINode (made when the agent starts, empty until a driver comes), the ids in
// an annotation of the Node, and the topology as labels of the Node. Counterpart: the kubelet's nodeinfomanager.
import type { Client } from "#client/client.ts";
import type { Node } from "#model/gen/core-v1.ts";
import type { CSINode, CSINodeDriver } from "#model/gen/storage-v1.ts";
import { nameOf, uidOf } from "#model/object.ts";
import { csiNodes, nodes } from "#model/resources.ts";
import { isAlreadyExists, isConflict, isNotFound } from "#model/status.ts";
import type { CsiNodeInfo } from "./plugins.ts";

const idAnnotation = "csi.volume.kubernetes.io/nodeid";
/** Lost races in a row; then the registration fails and is tried again later. */
const maxTries = 5;

export class CsiNodeRecord {
  readonly #nodeName: string;
  readonly #client: Client;

  constructor(options: { readonly nodeName: string }, deps: { readonly client: Client }) {
    this.#nodeName = options.nodeName;
    this.#client = deps.client;
  }

  /** The object, made where it is missing. One of a Node of before goes with that: its successor owns what is there. */
  async ensure(): Promise<CSINode> {
    const node = await this.#client.get(nodes, this.#nodeName);
    const ownerReferences = [{ apiVersion: "v1", kind: "Node", name: nameOf(node), uid: uidOf(node) }];
    try {
      const found = await this.#client.get(csiNodes, this.#nodeName);
      const owner = found.metadata.ownerReferences?.find(({ kind, name }) => kind === "Node" && name === nameOf(node));
      if (owner === undefined || owner.uid === uidOf(node)) return found;
      return await this.#client.update(csiNodes, { ...found, metadata: { ...found.metadata, ownerReferences } });
    } catch (error) {
      if (!isNotFound(error)) throw error;
    }
    const made: CSINode = {
      apiVersion: "storage.k8s.io/v1",
      kind: "CSINode",
      metadata: { name: this.#nodeName, ownerReferences },
      spec: { drivers: [] },
    };
    try {
      return await this.#client.create(csiNodes, made);
    } catch (error) {
      if (!isAlreadyExists(error)) throw error;
      return this.#client.get(csiNodes, this.#nodeName);
    }
  }

  async add(name: string, info: CsiNodeInfo): Promise<void> {
    const node = await this.#client.get(nodes, this.#nodeName);
    const ids = { ...idsOf(node), [name]: info.nodeId };
    const clash = Object.entries(info.topology).find(
      ([key, value]) => (node.metadata.labels?.[key] ?? value) !== value,
    );
    if (clash) {
      throw new Error(
        `detected topology value collision: driver reported "${clash[0]}":"${clash[1]}" but existing label is "${node.metadata.labels?.[clash[0]]}"`,
      );
    }
    const patch = { metadata: { annotations: { [idAnnotation]: JSON.stringify(ids) }, labels: info.topology } };
    await this.#client.patch(nodes, { name: this.#nodeName }, patch);
    const driver: CSINodeDriver = {
      name,
      nodeID: info.nodeId,
      topologyKeys: Object.keys(info.topology).sort(),
      ...(info.maxVolumes > 0 ? { allocatable: { count: info.maxVolumes } } : {}),
    };
    await this.#setDriver(name, driver);
  }

  async remove(name: string): Promise<void> {
    await this.#setDriver(name, undefined);
    const { [name]: _, ...ids } = idsOf(await this.#client.get(nodes, this.#nodeName));
    const text = Object.keys(ids).length > 0 ? JSON.stringify(ids) : null;
    await this.#client.patch(nodes, { name: this.#nodeName }, { metadata: { annotations: { [idAnnotation]: text } } });
  }

  async #setDriver(name: string, driver: CSINodeDriver | undefined): Promise<void> {
    for (let tries = 1; ; tries++) {
      const current = await this.ensure();
      const others = (current.spec.drivers ?? []).filter((one) => one.name !== name);
      const old = current.spec.drivers?.find((one) => one.name === name);
      if (JSON.stringify(old) === JSON.stringify(driver)) return;
      try {
        // A driver that is there may not be changed: it goes and comes again.
        const base =
          old && driver ? await this.#client.update(csiNodes, { ...current, spec: { drivers: others } }) : current;
        await this.#client.update(csiNodes, { ...base, spec: { drivers: driver ? [...others, driver] : others } });
        return;
      } catch (error) {
        if (!isConflict(error) || tries >= maxTries) throw error;
      }
    }
  }
}

/** Whether this Node says of the driver what `add` writes. */
export function saysOf(node: Node, name: string, { nodeId, topology }: CsiNodeInfo): boolean {
  const { labels } = node.metadata;
  return idsOf(node)[name] === nodeId && Object.entries(topology).every(([key, value]) => labels?.[key] === value);
}

function idsOf(node: Node): Record<string, string> {
  const text = node.metadata.annotations?.[idAnnotation];
  if (text === undefined) return {};
  try {
    const parsed: unknown = JSON.parse(text);
    return typeof parsed === "object" && parsed !== null ? (parsed as Record<string, string>) : {};
  } catch {
    // Somebody else's writing; ours replaces it.
    return {};
  }
}
