// Facts of apiextensions.k8s.io/v1 and apiregistration.k8s.io/v1, in the format of gen/facts.ts. Written by hand: the Go packages that the generated
// part is read from do not hold these groups. Numbers are only labels here, since they are not served in protobuf.
// Upstream counterpart: apiextensions-apiserver/pkg/apis/apiextensions/v1/types.go of 1.32.

export const extensionFactsText = `
@apiregistration/v1 apiregistration.k8s.io
APIService k
 metadata 1 meta/v1.ObjectMeta o
 spec 2 APIServiceSpec o
 status 3 APIServiceStatus o
APIServiceCondition
 type 1 string r
 status 2 string r
 lastTransitionTime 3 time o
 reason 4 string o
 message 5 string o
APIServiceList k
 metadata 1 meta/v1.ListMeta o
 items 2 []APIService r
APIServiceSpec
 service 1 ServiceReference o p
 group 2 string o
 version 3 string o
 insecureSkipTLSVerify 4 bool o
 caBundle 5 bytes o lt=atomic
 groupPriorityMinimum 7 int32 r
 versionPriority 8 int32 r
APIServiceStatus
 conditions 1 []APIServiceCondition o ps=merge mk=type lt=map lk=type
ServiceReference
 namespace 1 string o
 name 2 string o
 port 3 int32 o p
@apiextensions/v1 apiextensions.k8s.io
CustomResourceColumnDefinition
 name 1 string r
 type 2 string r
 format 3 string o
 description 4 string o
 priority 5 int32 o
 jsonPath 6 string r
CustomResourceConversion
 strategy 1 string r
 webhook 2 WebhookConversion o p
CustomResourceDefinition k
 metadata 1 meta/v1.ObjectMeta o
 spec 2 CustomResourceDefinitionSpec r
 status 3 CustomResourceDefinitionStatus o
CustomResourceDefinitionCondition
 type 1 string r
 status 2 string r
 lastTransitionTime 3 time o
 reason 4 string o
 message 5 string o
CustomResourceDefinitionList k
 metadata 1 meta/v1.ListMeta o
 items 2 []CustomResourceDefinition r
CustomResourceDefinitionNames
 plural 1 string r
 singular 2 string o
 shortNames 3 []string o lt=atomic
 kind 4 string r
 listKind 5 string o
 categories 6 []string o lt=atomic
CustomResourceDefinitionSpec
 group 1 string r
 names 3 CustomResourceDefinitionNames r
 scope 4 string r
 versions 7 []CustomResourceDefinitionVersion r lt=atomic
 conversion 9 CustomResourceConversion o p
 preserveUnknownFields 10 bool o
CustomResourceDefinitionStatus
 conditions 1 []CustomResourceDefinitionCondition lt=map lk=type
 acceptedNames 2 CustomResourceDefinitionNames
 storedVersions 3 []string lt=atomic
CustomResourceDefinitionVersion
 name 1 string r
 served 2 bool r
 storage 3 bool r
 schema 4 CustomResourceValidation o p
 subresources 5 CustomResourceSubresources o p
 additionalPrinterColumns 6 []CustomResourceColumnDefinition o lt=atomic
 deprecated 7 bool o
 deprecationWarning 8 string o p
 selectableFields 9 []SelectableField o lt=atomic
CustomResourceSubresourceScale
 specReplicasPath 1 string r
 statusReplicasPath 2 string r
 labelSelectorPath 3 string o p
CustomResourceSubresourceStatus
CustomResourceSubresources
 status 1 CustomResourceSubresourceStatus o p
 scale 2 CustomResourceSubresourceScale o p
CustomResourceValidation
 openAPIV3Schema 1 JSONSchemaProps o p
ExternalDocumentation
 description 1 string o
 url 2 string o
JSONSchemaProps
 id 1 string o
 $schema 2 string o
 $ref 3 string o p
 description 4 string o
 type 5 string o
 format 6 string o
 title 7 string o
 default 8 raw o p
 maximum 9 double o p
 exclusiveMaximum 10 bool o
 minimum 11 double o p
 exclusiveMinimum 12 bool o
 maxLength 13 int64 o p
 minLength 14 int64 o p
 pattern 15 string o
 maxItems 16 int64 o p
 minItems 17 int64 o p
 uniqueItems 18 bool o
 multipleOf 19 double o p
 enum 20 []raw o lt=atomic
 maxProperties 21 int64 o p
 minProperties 22 int64 o p
 required 23 []string o lt=atomic
 items 24 JSONSchemaProps o p u
 allOf 25 []JSONSchemaProps o lt=atomic
 oneOf 26 []JSONSchemaProps o lt=atomic
 anyOf 27 []JSONSchemaProps o lt=atomic
 not 28 JSONSchemaProps o p
 properties 29 {}JSONSchemaProps o
 additionalProperties 30 JSONSchemaProps o p u
 patternProperties 31 {}JSONSchemaProps o
 dependencies 32 {}raw o
 additionalItems 33 JSONSchemaProps o p u
 definitions 34 {}JSONSchemaProps o
 externalDocs 35 ExternalDocumentation o p
 example 36 raw o p
 nullable 37 bool o
 x-kubernetes-preserve-unknown-fields 38 bool o p
 x-kubernetes-embedded-resource 39 bool o
 x-kubernetes-int-or-string 40 bool o
 x-kubernetes-list-map-keys 41 []string o lt=atomic
 x-kubernetes-list-type 42 string o p
 x-kubernetes-map-type 43 string o p
 x-kubernetes-validations 44 []ValidationRule o ps=merge mk=rule lt=map lk=rule
SelectableField
 jsonPath 1 string r
ServiceReference
 namespace 1 string r
 name 2 string r
 path 3 string o p
 port 4 int32 o p
ValidationRule
 rule 1 string r
 message 2 string o
 messageExpression 3 string o
 reason 4 string o p
 fieldPath 5 string o
 optionalOldSelf 6 bool o p
WebhookClientConfig
 service 1 ServiceReference o p
 caBundle 2 bytes o
 url 3 string o p
WebhookConversion
 clientConfig 2 WebhookClientConfig o p
 conversionReviewVersions 3 []string r lt=atomic
`;
