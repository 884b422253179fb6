// Tables of what administrators look at: flow control, admission policies, component statuses, storage capacities,
// ranges of service addresses.
import type { ApiService } from "#model/api-services.ts";
import type {
  ValidatingAdmissionPolicy,
  ValidatingAdmissionPolicyBinding,
} from "#model/gen/admissionregistration-v1.ts";
import type { ComponentStatus } from "#model/gen/core-v1.ts";
import type { FlowSchema, PriorityLevelConfiguration } from "#model/gen/flowcontrol-v1.ts";
import type { IPAddress, ServiceCIDR } from "#model/gen/networking-v1beta1.ts";
import type { CSIStorageCapacity } from "#model/gen/storage-v1.ts";
import { ageColumn, count, nameColumn, text } from "./column-kit.ts";
import type { Column } from "./columns.ts";

export const componentStatusColumns: readonly Column<ComponentStatus>[] = [
  nameColumn,
  text("Status", "Whether it is well.", ({ conditions }) => {
    const healthy = conditions?.find(({ type }) => type === "Healthy");
    return healthy ? (healthy.status === "True" ? "Healthy" : "Unhealthy") : "Unknown";
  }),
  text("Message", "What it says.", ({ conditions }) => conditions?.find(({ type }) => type === "Healthy")?.message),
  text("Error", "What went wrong.", ({ conditions }) => conditions?.find(({ type }) => type === "Healthy")?.error),
];

export const apiServiceColumns: readonly Column<ApiService>[] = [
  nameColumn,
  text("Service", "Who serves it.", ({ spec }) =>
    spec?.service ? `${spec.service.namespace}/${spec.service.name}` : "Local",
  ),
  text("Available", "Whether it can be reached.", ({ status }) => {
    const available = status?.conditions?.find(({ type }) => type === "Available");
    if (!available) return "Unknown";
    return available.status === "True" ? "True" : `${available.status} (${available.reason})`;
  }),
  ageColumn,
];

export const serviceCidrColumns: readonly Column<ServiceCIDR>[] = [
  nameColumn,
  text("CIDRs", "Where addresses of services are from.", ({ spec }) => (spec?.cidrs ?? []).join(",")),
  ageColumn,
];

export const ipAddressColumns: readonly Column<IPAddress>[] = [
  nameColumn,
  text("ParentRef", "Whose it is.", ({ spec }) => {
    if (!spec?.parentRef) return "<none>";
    const { group, resource = "", namespace, name = "" } = spec.parentRef;
    return [group ? `${resource}.${group}` : resource, ...(namespace ? [namespace] : []), name].join("/");
  }),
];

export const flowSchemaColumns: readonly Column<FlowSchema>[] = [
  nameColumn,
  text(
    "PriorityLevel",
    "Level that its requests are handled at.",
    ({ spec }) => spec?.priorityLevelConfiguration?.name,
  ),
  count("MatchingPrecedence", "Lower numbers are looked at first.", ({ spec }) => spec?.matchingPrecedence),
  text(
    "DistinguisherMethod",
    "How its requests are told apart.",
    ({ spec }) => spec?.distinguisherMethod?.type ?? "<none>",
  ),
  ageColumn,
  text("MissingPL", "Whether that level is missing.", ({ status }) => {
    const dangling = status?.conditions?.find(({ type }) => type === "Dangling");
    return dangling?.status ?? "?";
  }),
];

/** A number that not every level has. */
const maybe = (
  name: string,
  description: string,
  value: (level: PriorityLevelConfiguration) => number | undefined,
): Column<PriorityLevelConfiguration> => text(name, description, (level) => value(level) ?? "<none>");

export const priorityLevelColumns: readonly Column<PriorityLevelConfiguration>[] = [
  nameColumn,
  text("Type", "Limited, or exempt from limits.", ({ spec }) => spec?.type),
  maybe("NominalConcurrencyShares", "Its share of what is handled at one time.", ({ spec }) =>
    spec?.limited ? spec.limited.nominalConcurrencyShares : spec?.exempt?.nominalConcurrencyShares,
  ),
  maybe("Queues", "How many queues it has.", ({ spec }) => spec?.limited?.limitResponse?.queuing?.queues),
  maybe("HandSize", "Queues that one flow may use.", ({ spec }) => spec?.limited?.limitResponse?.queuing?.handSize),
  maybe(
    "QueueLengthLimit",
    "Requests that one queue holds.",
    ({ spec }) => spec?.limited?.limitResponse?.queuing?.queueLengthLimit,
  ),
  ageColumn,
];

export const admissionPolicyColumns: readonly Column<ValidatingAdmissionPolicy>[] = [
  nameColumn,
  count("Validations", "How many rules it has.", ({ spec }) => spec?.validations?.length),
  text("ParamKind", "Kind of its parameters.", ({ spec }) =>
    spec?.paramKind ? `${spec.paramKind.apiVersion}/${spec.paramKind.kind}` : "<unset>",
  ),
  ageColumn,
];

export const admissionPolicyBindingColumns: readonly Column<ValidatingAdmissionPolicyBinding>[] = [
  nameColumn,
  text("PolicyName", "The policy it puts to use.", ({ spec }) => spec?.policyName),
  text("ParamRef", "Its parameters.", ({ spec }) => {
    const { namespace, name } = spec?.paramRef ?? {};
    if (!spec?.paramRef) return "<unset>";
    return namespace ? `${namespace}/${name ?? "*"}` : (name ?? "*");
  }),
  ageColumn,
];

export const storageCapacityColumns: readonly Column<CSIStorageCapacity>[] = [
  nameColumn,
  text("StorageClassName", "Class of the volumes.", ({ storageClassName }) => storageClassName),
  text("Capacity", "What is left.", ({ capacity }) => capacity ?? "<unset>"),
];
