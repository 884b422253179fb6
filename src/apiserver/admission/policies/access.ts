// What the variable `authorizer` of expressions asks, put to the authoriser of the server. An answer that has to be waited
// for stops the evaluation, and it is done again with the answer. Upstream: the caching authorizer of the policy plugin.
import { messageOf } from "#base/errors.ts";
import { type Answer, AuthorizerValue, type Question } from "#model/cel/library-authorizer.ts";
import { serviceAccountUser } from "../../authn/service-account.ts";
import type { UserInfo } from "../../authn/user.ts";
import type { Attributes, Authorizer, Decision } from "../../authz/authorizer.ts";
import type { AdmissionRequest } from "../plugin.ts";

class Unanswered extends Error {
  readonly key: string;
  readonly pending: Promise<Decision>;
  constructor(key: string, pending: Promise<Decision>) {
    super("an answer of the authoriser is needed");
    this.key = key;
    this.pending = pending;
  }
}

const masters = "system:masters";

/** Of one request, by one user: what was asked once is not asked again. */
export class Access {
  readonly variable: AuthorizerValue;
  readonly #user: UserInfo;
  readonly #authorizer: Authorizer | undefined;
  readonly #known = new Map<string, Answer>();
  constructor(request: AdmissionRequest, user: UserInfo, authorizer: Authorizer | undefined) {
    const { resource, subresource, namespace, name } = request;
    this.#user = user;
    this.#authorizer = authorizer;
    const about = { group: resource.group, resource: resource.plural, subresource, namespace, name };
    this.variable = new AuthorizerValue((question) => this.#ask(question), about);
  }

  /** What `evaluate` gives once all it asks is known: a question costs so much that no evaluation asks many. */
  async settled<T>(evaluate: () => Promise<T>): Promise<T> {
    for (;;) {
      try {
        return await evaluate();
      } catch (error) {
        if (!(error instanceof Unanswered)) throw error;
        this.#known.set(error.key, await answerOf(error.pending));
      }
    }
  }

  #ask(question: Question): Answer {
    const key = JSON.stringify(question);
    const known = this.#known.get(key);
    if (known) return known;
    const { serviceAccount } = question;
    const user = serviceAccount ? serviceAccountUser(serviceAccount.namespace, serviceAccount.name, "") : this.#user;
    const answer = this.#decide(key, attributesOf(user, question));
    this.#known.set(key, answer);
    return answer;
  }

  #decide(key: string, attributes: Attributes): Answer {
    if (attributes.user.groups.includes(masters)) return { allowed: true, reason: "" };
    const decision = this.#authorizer?.authorize(attributes) ?? { verdict: "no-opinion", reason: "" };
    if (decision instanceof Promise) throw new Unanswered(key, decision);
    return toAnswer(decision);
  }
}

const toAnswer = ({ verdict, reason }: Decision): Answer => ({ allowed: verdict === "allow", reason });

async function answerOf(pending: Promise<Decision>): Promise<Answer> {
  try {
    return toAnswer(await pending);
  } catch (error) {
    return { allowed: false, reason: "", error: messageOf(error) };
  }
}

function attributesOf(user: UserInfo, { verb, about }: Question): Attributes {
  const nothing = { group: "", version: "", resource: "", subresource: "", namespace: "", name: "", path: "" };
  if ("path" in about) return { ...nothing, user, verb, resourceRequest: false, path: about.path };
  return { ...nothing, user, verb, resourceRequest: true, version: "*", ...about };
}
