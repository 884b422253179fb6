// Keeps one IPAddress for every address of a service and none besides: for services from before the feature gate
// MultiCIDRServiceAllocator was on, and for what a crash or a deletion by hand has left. What is to be done is in
// ip-address-plan.ts; before anything is written the API is asked whether it is really so, because informers of two kinds
// are not in step. Upstream counterpart: ipallocator-repair-controller of kube-apiserver.
import type { Service as RunningService } from "#base/service.ts";
import type { Service } from "#model/gen/core-v1.ts";
import type { IPAddress } from "#model/gen/networking-v1beta1.ts";
import { type ApiObject, isDeleting, keyOf, nameOf, splitKey } from "#model/object.ts";
import type { ResourceInfo } from "#model/resource-info.ts";
import { ipAddresses, services } from "#model/resources.ts";
import { addressFor, clusterIpsOf, serviceKeyOf } from "#model/service-addresses.ts";
import { isAlreadyExists, isNotFound } from "#model/status.ts";
import { type ControllerDeps, createController, on, waitFor } from "../runtime/controller.ts";
import { createPeriodicController } from "../runtime/periodic-controller.ts";
import { deleteIfThere } from "../runtime/writes.ts";
import { planAddress, planClusterIp, type Told } from "./ip-address-plan.ts";

const name = "ipallocator-repair-controller";
/** Keys of the queue are of two kinds. */
const ofService = "service ";
const ofAddress = "address ";

/** Upstream's. */
const periodMs = 180_000;

export function createIpAddressRepair(deps: ControllerDeps): RunningService[] {
  const { client, clock } = deps;
  const serviceStore = deps.informers.informer(services);
  const addressStore = deps.informers.informer(ipAddresses);
  const recorder = deps.events.as(name);

  const tell = <T extends ApiObject>(resource: ResourceInfo<T>, object: T, { reason, message }: Told): void =>
    recorder.record({ resource: resource as unknown as ResourceInfo, object, type: "Warning", reason, message });

  const fresh = async <T extends ApiObject>(resource: ResourceInfo<T>, key: string): Promise<T | undefined> => {
    const { namespace, name: own } = splitKey(key);
    try {
      return await client.get(resource, own, namespace === "" ? undefined : namespace);
    } catch (error) {
      if (isNotFound(error)) return undefined;
      throw error;
    }
  };
  const storedOwner = (address: IPAddress | undefined): Service | undefined =>
    address && serviceStore.get(serviceKeyOf(address) ?? "");

  async function repairService(key: string): Promise<void> {
    const seen = serviceStore.get(key);
    const isOdd = (service: Service) => (ip: string) => {
      const address = addressStore.get(nameOf(addressFor(ip, service)));
      return planClusterIp(service, ip, address, storedOwner(address)).do !== "nothing";
    };
    if (!seen || !clusterIpsOf(seen).some(isOdd(seen))) return;
    const service = await fresh(services, key);
    if (!service || isDeleting(service)) return;
    for (const ip of clusterIpsOf(service)) {
      const wanted = addressFor(ip, service);
      const address = await fresh(ipAddresses, nameOf(wanted));
      const ownerKey = address && serviceKeyOf(address);
      const owner = ownerKey === undefined ? undefined : await fresh(services, ownerKey);
      const step = planClusterIp(service, ip, address, owner);
      if (step.do === "nothing") continue;
      if (step.told) tell(services, service, step.told);
      if (step.instead) await deleteIfThere(client, ipAddresses, step.instead);
      try {
        await client.create(ipAddresses, wanted);
      } catch (error) {
        // Its event brings the service here again.
        if (!isAlreadyExists(error)) throw error;
      }
    }
  }

  /** Answers when to look again. */
  async function repairAddress(address: IPAddress): Promise<number | undefined> {
    let step = planAddress(address, storedOwner(address), clock.now());
    if (step.do === "remove") {
      const ownerKey = serviceKeyOf(address);
      const owner = ownerKey === undefined ? undefined : await fresh(services, ownerKey);
      step = planAddress(address, owner, clock.now());
    }
    if (step.do === "wait") return step.ms;
    if (step.do === "remove" && (await deleteIfThere(client, ipAddresses, address))) {
      tell(ipAddresses, address, step.told);
    }
    return undefined;
  }

  const onChange = createController(
    {
      name,
      workers: 5,
      triggers: [
        // Not its addresses: what it no longer holds is being given back by whoever wrote it.
        on(serviceStore, (service) => [ofService + keyOf(service)]),
        on(addressStore, (address) => {
          const owner = serviceKeyOf(address);
          return [ofAddress + nameOf(address), ...(owner === undefined ? [] : [ofService + owner])];
        }),
      ],
      async sync(key, again) {
        if (key.startsWith(ofService)) return repairService(key.slice(ofService.length));
        const address = addressStore.get(key.slice(ofAddress.length));
        const waitMs = address && (await repairAddress(address));
        if (waitMs !== undefined) again(waitMs);
      },
    },
    deps,
  );
  // What was not given back shows in nothing that changes.
  const now = createPeriodicController(
    {
      name: `${name}-all`,
      periodMs,
      triggers: [waitFor(serviceStore), waitFor(addressStore)],
      async round() {
        for (const address of addressStore.list()) await repairAddress(address);
      },
    },
    deps,
  );
  return [onChange, now];
}
