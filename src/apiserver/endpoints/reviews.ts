// Resources that are questions: who is this token, may this user, what may I, who am I. POST answers; nothing is stored.
// Upstream counterpart: pkg/registry/authentication and pkg/registry/authorization.

import type { UnknownObject } from "#model/object.ts";
import type { ResourceInfo } from "#model/resource-info.ts";
import { badRequest, fieldInvalid, fieldRequired, invalid, isApiError } from "#model/status.ts";
import type { ReviewedToken } from "../authn/service-account.ts";
import type { UserInfo } from "../authn/user.ts";
import type { Attributes, Authorizer } from "../authz/authorizer.ts";
import type { Bodies } from "./bodies.ts";
import type { RequestInfo } from "./request-info.ts";
import type { HandlerRequest, Result } from "./result.ts";

export interface PolicyRuleLike {
  readonly verbs?: readonly string[];
  readonly apiGroups?: readonly string[];
  readonly resources?: readonly string[];
  readonly resourceNames?: readonly string[];
  readonly nonResourceURLs?: readonly string[];
}

export interface ReviewDeps {
  readonly bodies: Bodies;
  readonly authorizer: Authorizer;
  /** Undefined: not a token of this server. Rejects with 401 when it is one but does not hold. */
  readonly reviewToken:
    | ((token: string, audiences: readonly string[]) => Promise<ReviewedToken | undefined>)
    | undefined;
  readonly rulesFor: ((user: UserInfo, namespace: string) => readonly PolicyRuleLike[]) | undefined;
}

type Review = (deps: ReviewDeps, body: UnknownObject, info: RequestInfo, user: UserInfo) => Promise<object>;

interface ResourceAttributes {
  namespace?: string;
  verb?: string;
  group?: string;
  version?: string;
  resource?: string;
  subresource?: string;
  name?: string;
}
interface AccessSpec {
  resourceAttributes?: ResourceAttributes;
  nonResourceAttributes?: { path?: string; verb?: string };
  user?: string;
  groups?: string[];
  uid?: string;
  extra?: Record<string, string[]>;
}

/** By qualified resource. Each answers with the status of the review. */
export const reviews: Readonly<Record<string, Review>> = {
  "tokenreviews.authentication.k8s.io": async (deps, body) => {
    const spec = (body["spec"] ?? {}) as { token?: string; audiences?: string[] };
    if ((spec.token ?? "") === "") throw badRequest("token is required for TokenReview in authentication");
    try {
      const reviewed = await deps.reviewToken?.(spec.token!, spec.audiences ?? []);
      if (!reviewed) return {};
      return { authenticated: true, user: userOf(reviewed.user), audiences: reviewed.audiences };
    } catch (error) {
      // Who could not be asked is not nobody: callers keep an answer, and ask again after a failure.
      if (!isApiError(error, "Unauthorized")) throw error;
      return { error: error.message };
    }
  },
  "selfsubjectreviews.authentication.k8s.io": async (_deps, _body, _info, user) => ({ userInfo: userOf(user) }),
  "subjectaccessreviews.authorization.k8s.io": (deps, body) =>
    access(deps, "SubjectAccessReview", specOf(body), undefined),
  "localsubjectaccessreviews.authorization.k8s.io": (deps, body, info) => {
    const spec = specOf(body);
    if ((spec.resourceAttributes?.namespace ?? "") !== info.namespace) {
      throw badRequest(`spec.resourceAttributes.namespace must match namespace: ${info.namespace}`);
    }
    return access(deps, "LocalSubjectAccessReview", spec, undefined);
  },
  "selfsubjectaccessreviews.authorization.k8s.io": (deps, body, _info, user) =>
    access(deps, "SelfSubjectAccessReview", specOf(body), user),
  "selfsubjectrulesreviews.authorization.k8s.io": async (deps, body, _info, user) => {
    const namespace = (specOf(body) as { namespace?: string }).namespace ?? "";
    if (namespace === "") throw badRequest("no namespace on request");
    const rules = deps.rulesFor?.(user, namespace) ?? [];
    return {
      resourceRules: rules
        .filter((rule) => (rule.resources ?? []).length > 0)
        .map(({ verbs, apiGroups, resources, resourceNames }) => ({ verbs, apiGroups, resources, resourceNames })),
      nonResourceRules: rules
        .filter((rule) => (rule.nonResourceURLs ?? []).length > 0)
        .map(({ verbs, nonResourceURLs }) => ({ verbs, nonResourceURLs })),
      incomplete: false,
    };
  },
};

export async function handleReview(
  deps: ReviewDeps,
  review: Review,
  served: ResourceInfo,
  info: RequestInfo,
  request: HandlerRequest,
): Promise<Result> {
  const body = await deps.bodies.read(request, served);
  const status = await review(deps, body, info, request.user);
  const { resourceVersion: _resourceVersion, ...metadata } = body.metadata;
  return { type: "object", status: 201, object: { ...body, metadata, status }, transforms: false };
}

const specOf = (body: UnknownObject): AccessSpec => (body["spec"] ?? {}) as AccessSpec;

async function access(deps: ReviewDeps, kind: string, spec: AccessSpec, self: UserInfo | undefined): Promise<object> {
  const { resourceAttributes: resource, nonResourceAttributes: plain } = spec;
  const errors = [];
  if (resource && plain) {
    errors.push(
      fieldInvalid("spec.nonResourceAttributes", plain, "cannot be specified in combination with resourceAttributes"),
    );
  }
  if (!resource && !plain) {
    errors.push(
      fieldInvalid(
        "spec.resourceAttributes",
        resource,
        "exactly one of nonResourceAttributes or resourceAttributes must be specified",
      ),
    );
  }
  if (!self && (spec.user ?? "") === "" && (spec.groups ?? []).length === 0) {
    errors.push(fieldRequired("spec.user", "at least one of user or group must be specified"));
  }
  if (errors.length > 0) throw invalid("authorization.k8s.io", kind, "", errors);
  const user: UserInfo = self ?? {
    name: spec.user ?? "",
    groups: spec.groups ?? [],
    ...(spec.uid ? { uid: spec.uid } : {}),
    ...(spec.extra ? { extra: spec.extra } : {}),
  };
  const attributes: Attributes = {
    user,
    verb: resource?.verb ?? plain?.verb ?? "",
    resourceRequest: resource !== undefined,
    group: resource?.group ?? "",
    version: resource?.version ?? "",
    resource: resource?.resource ?? "",
    subresource: resource?.subresource ?? "",
    namespace: resource?.namespace ?? "",
    name: resource?.name ?? "",
    path: plain?.path ?? "",
  };
  const { verdict, reason } = await deps.authorizer.authorize(attributes);
  return {
    allowed: verdict === "allow",
    ...(verdict === "deny" ? { denied: true } : {}),
    ...(reason === "" ? {} : { reason }),
  };
}

function userOf(user: UserInfo): object {
  return {
    username: user.name,
    ...(user.uid ? { uid: user.uid } : {}),
    groups: user.groups,
    ...(user.extra ? { extra: user.extra } : {}),
  };
}
