// Ranges of service addresses as objects: see service-cidr-plan.ts. The default one is made again from the server's flags
// when somebody has deleted it, and somebody is told where it says something else than they do.
// Upstream counterpart: service-cidr-controller, and kubernetes-service-cidr-controller of kube-apiserver.
import { rfc3339 } from "#base/clock.ts";
import { offsetIn } from "#base/ip-range.ts";
import type { Service as RunningService } from "#base/service.ts";
import type { ServiceCIDR } from "#model/gen/networking-v1beta1.ts";
import { isDeleting, nameOf } from "#model/object.ts";
import type { ResourceInfo } from "#model/resource-info.ts";
import { ipAddresses, serviceCidrs } from "#model/resources.ts";
import { defaultServiceCidr, defaultServiceCidrName, isOurs, rangesOf } from "#model/service-addresses.ts";
import { isAlreadyExists } from "#model/status.ts";
import { type ControllerDeps, createController, on } from "../runtime/controller.ts";
import { dropFinalizer, writeFinalizers } from "../runtime/writes.ts";
import { planServiceCidr, type ServiceCidrStep, serviceCidrFinalizer } from "./service-cidr-plan.ts";

const name = "service-cidr-controller";

export interface ServiceCidrOptions {
  /** Of the flags: one range, or one of each family with a comma between. */
  readonly cidr: string;
}

export function createServiceCidrController(deps: ControllerDeps, { cidr }: ServiceCidrOptions): RunningService {
  const { client, clock } = deps;
  const store = deps.informers.informer(serviceCidrs);
  const addresses = deps.informers.informer(ipAddresses);
  const recorder = deps.events.as("kubernetes-service-cidr-controller");
  const ofFlags = cidr.split(",").map((each) => each.trim());
  let isTold = false;

  const tellIfOdd = (object: ServiceCIDR): void => {
    const has = object.spec?.cidrs ?? [];
    if (isTold || nameOf(object) !== defaultServiceCidrName || has.join() === ofFlags.join()) return;
    isTold = true;
    const message = `The default ServiceCIDR [${has.join(" ")}] does not match the controller flag configurations [${ofFlags.join(" ")}]`;
    const resource = serviceCidrs as ResourceInfo;
    recorder.record({ resource, object, type: "Warning", reason: "KubernetesDefaultServiceCIDRInconsistent", message });
  };

  async function apply(object: ServiceCIDR, step: ServiceCidrStep, again: (ms: number) => void): Promise<void> {
    switch (step.do) {
      case "nothing":
        return;
      case "protect":
        return writeFinalizers(client, serviceCidrs, object, [
          ...(object.metadata.finalizers ?? []),
          serviceCidrFinalizer,
        ]);
      case "say": {
        const others = object.status?.conditions?.filter(({ type }) => type !== "Ready") ?? [];
        const condition = { type: "Ready", ...step.condition, lastTransitionTime: rfc3339(clock.now()) };
        await client.updateStatus(serviceCidrs, { ...object, status: { conditions: [...others, condition] } });
        return;
      }
      case "wait":
        again(step.ms);
        return;
      case "let go":
        return dropFinalizer(client, serviceCidrs, object, serviceCidrFinalizer);
    }
  }

  return createController(
    {
      name,
      workers: 1,
      firstKeys: [defaultServiceCidrName],
      triggers: [
        // A range that comes or goes may be what another one waits for.
        on(store, (object, how) =>
          how === "update" ? [nameOf(object)] : [...store.list().map(nameOf), nameOf(object)],
        ),
        on(addresses, (address, how) => {
          if (how === "update" || !isOurs(address)) return [];
          const holds = (object: ServiceCIDR) =>
            rangesOf(object).some((range) => offsetIn(range, nameOf(address)) !== undefined);
          return store
            .list()
            .filter((object) => isDeleting(object) && holds(object))
            .map(nameOf);
        }),
      ],
      async sync(key, again) {
        const object = store.get(key);
        if (!object) {
          if (key !== defaultServiceCidrName) return;
          try {
            await client.create(serviceCidrs, defaultServiceCidr(ofFlags));
          } catch (error) {
            if (!isAlreadyExists(error)) throw error;
          }
          return;
        }
        tellIfOdd(object);
        const facts = { object, all: store.list(), addresses: () => addresses.list(), nowMs: clock.now() };
        await apply(object, planServiceCidr(facts), again);
      },
    },
    deps,
  );
}
