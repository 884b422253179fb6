// Roles and bindings. Nobody may hand out more than they hold: that check needs the authorizer and sits in admission
// (admission/rbac-escalation.ts). Upstream: pkg/registry/rbac.
import { plain } from "./plain.ts";

export const roles = plain({ allowCreateOnUpdate: true });
export const clusterRoles = plain({ allowCreateOnUpdate: true });
/** Role bindings and cluster role bindings. */
export const roleBindings = plain({ allowCreateOnUpdate: true });
