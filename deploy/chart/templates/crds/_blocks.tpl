{{/* What the kinds have in common. Every block is a YAML text that begins at the margin. */}}

{{/* The definition of a kind as it is in the cluster, if it is: (list . plural). Without a cluster to
     look into, as in `helm template`, none is there. */}}
{{- define "crd.there" -}}
{{- $name := printf "%s.aim.eai.amd.com" (index . 1) -}}
{{- lookup "apiextensions.k8s.io/v1" "CustomResourceDefinition" "" $name | toJson -}}
{{- end }}

{{/* Whether a kind is of this release: (list . plural). It says so itself; but who replaces its
     definition takes that away, so the release has noted it, too (crds.note). */}}
{{- define "crd.ours" -}}
{{- $root := index . 0 -}}
{{- $notes := dig "metadata" "annotations" (dict) (include "crd.there" . | fromJson) -}}
{{- $name_of_ours := eq (get $notes "meta.helm.sh/release-name") $root.Release.Name -}}
{{- $namespace_of_ours := eq (get $notes "meta.helm.sh/release-namespace") $root.Release.Namespace -}}
{{- $noted := has (index . 1) (splitList "," (include "crds.noted" $root)) -}}
{{- if or (and $name_of_ours $namespace_of_ours) $noted -}}
true
{{- end -}}
{{- end }}

{{/* Whether a kind is installed: (list . plural). One that is there and not of this release stays as
     it is, whoever brought it. */}}
{{- define "crd.wanted" -}}
{{- $there := include "crd.there" . | fromJson -}}
{{- if (index . 0).Values.crds.install -}}
{{- if or (not $there) (include "crd.ours" .) -}}
true
{{- end -}}
{{- end -}}
{{- end }}

{{- define "crds.all" -}}
aimartifacts,aimmodelcaches,aimtemplatecaches,aimruntimeconfigs,aimclusterruntimeconfigs,aimservices,aimservicetemplates,aimclusterservicetemplates,aimmodels,aimclustermodels
{{- end }}

{{/* The kinds that an earlier revision of the release has brought, as its Deployment has noted. */}}
{{- define "crds.noted" -}}
{{- $deployment := lookup "apps/v1" "Deployment" .Release.Namespace (include "operator.name" .) -}}
{{- dig "metadata" "annotations" "aim.eai.amd.com/kinds-of-release" "" $deployment -}}
{{- end }}

{{/* The kinds that this revision brings, for the next one. */}}
{{- define "crds.note" -}}
{{- $wanted := list -}}
{{- range $plural := splitList "," (include "crds.all" .) -}}
{{- if include "crd.wanted" (list $ $plural) -}}{{- $wanted = append $wanted $plural -}}{{- end -}}
{{- end -}}
{{- join "," $wanted -}}
{{- end }}

{{/* Helm deletes what the release has had and has no longer, unless it is marked to be kept: a kind
     goes with all its objects, and all models. So none may go without its mark. */}}
{{- define "crds.guard" -}}
{{- range $plural := splitList "," (include "crds.noted" .) -}}
{{- $there := include "crd.there" (list $ $plural) | fromJson -}}
{{- $kept := eq (dig "metadata" "annotations" "helm.sh/resource-policy" "" $there) "keep" -}}
{{- if and $plural $there (not $kept) (not (include "crd.wanted" (list $ $plural))) -}}
{{- $mark := printf "kubectl annotate crd %s.aim.eai.amd.com helm.sh/resource-policy=keep" $plural -}}
{{- fail (printf "Helm would delete the kind %s, with all its objects and models: first do `%s`" $plural $mark) -}}
{{- end -}}
{{- end -}}
{{- end }}

{{/* The metadata of a kind: (list . plural). It outlives the release, and so do the models: with a
     kind go all its objects, and with them their volumes. */}}
{{- define "crd.metadata" -}}
name: {{ index . 1 }}.aim.eai.amd.com
labels:
  {{- include "operator.labels" (index . 0) | nindent 2 }}
annotations:
  helm.sh/resource-policy: keep
{{- end }}

{{/* (list kind singular short-name) */}}
{{- define "crd.names" -}}
kind: {{ index . 0 }}
listKind: {{ index . 0 }}List
plural: {{ index . 1 }}s
singular: {{ index . 1 }}
shortNames: [{{ index . 2 }}]
categories: [aim, all]
{{- end }}

{{/* Behind the columns that every `kubectl get` shows: why it is, or is not, ready. */}}
{{- define "crd.why" -}}
- {name: Paused, type: string, jsonPath: '.metadata.annotations.aim\.eai\.amd\.com/reconciliation-paused', priority: 1}
- {name: Reason, type: string, jsonPath: '.status.conditions[?(@.type=="Ready")].reason', priority: 1}
- {name: Message, type: string, jsonPath: '.status.conditions[?(@.type=="Ready")].message', priority: 1}
{{- end }}

{{/* A quantity: its description. Negative ones are refused. */}}
{{- define "schema.quantity" -}}
description: {{ . | quote }}
anyOf: [{type: integer}, {type: string}]
x-kubernetes-int-or-string: true
minimum: 0
pattern: '^\+?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))(([KMGTPE]i)|[numkMGTPE]|([eE](\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))))?$'
{{- end }}

{{/* A list of environment variables: its description. */}}
{{- define "schema.env" -}}
description: {{ . | quote }}
type: array
x-kubernetes-list-type: map
x-kubernetes-list-map-keys: [name]
items:
  type: object
  required: [name]
  properties:
    name:
      description: The variable, as HF_TOKEN. No name occurs twice in the list.
      type: string
      minLength: 1
    value:
      description: Its value as text; a number or true is quoted. Secrets belong into valueFrom.
      type: string
    valueFrom:
      description: Where the value is taken from when a pod starts, in place of value.
      type: object
      properties:
        configMapKeyRef:
          description: A key of a ConfigMap in the same namespace.
          type: object
          required: [key]
          x-kubernetes-map-type: atomic
          properties:
            key: {type: string, description: The key whose value is taken.}
            name: {type: string, default: "", description: The name of the ConfigMap.}
            optional:
              description: >-
                Whether the pod also starts without the ConfigMap or the key. Default: false.
              type: boolean
        secretKeyRef:
          description: >-
            A key of a Secret in the same namespace. The operator never reads it, only the pod does.
          type: object
          required: [key]
          x-kubernetes-map-type: atomic
          properties:
            key: {type: string, description: "The key whose value is taken, as token."}
            name: {type: string, default: "", description: The name of the Secret.}
            optional:
              description: >-
                Whether the pod also starts without the Secret or the key. Default: false.
              type: boolean
        fieldRef:
          description: A field of the pod itself.
          type: object
          required: [fieldPath]
          x-kubernetes-map-type: atomic
          properties:
            apiVersion:
              description: The version that the path is written for. Default v1.
              type: string
            fieldPath:
              description: The path of the field, as metadata.namespace.
              type: string
        resourceFieldRef:
          description: A request or limit of a container of the pod.
          type: object
          required: [resource]
          x-kubernetes-map-type: atomic
          properties:
            containerName:
              description: The container. Default the one that has this variable.
              type: string
            divisor:
              {{- include "schema.quantity" "The unit of the value, as 1Mi. Default 1." | nindent 14 }}
            resource:
              description: The request or limit, as limits.memory.
              type: string
{{- end }}

{{/* A list of pull secrets: its description. */}}
{{- define "schema.pull-secrets" -}}
description: {{ . | quote }}
type: array
items:
  type: object
  x-kubernetes-map-type: atomic
  properties:
    name:
      description: The name of a Secret of the type kubernetes.io/dockerconfigjson.
      type: string
      default: ""
{{- end }}

{{/* A list of model sources: its description. */}}
{{- define "schema.sources" -}}
description: {{ . | quote }}
type: array
items:
  type: object
  required: [modelId, sourceUri]
  properties:
    modelId:
      description: >-
        The name of the model, as org/name. Below this name it is mounted.
      type: string
      pattern: '^[a-zA-Z0-9_-]+/[a-zA-Z0-9._-]+$'
    sourceUri:
      description: >-
        Where the model is: hf://org/name of a Hub, or s3://bucket/prefix.
      type: string
      pattern: '^(hf|s3)://[^ \t\r\n]+$'
    size:
      {{- include "schema.quantity" "How large the model is, as 15Gi. Default: it is asked for." | nindent 6 }}
    env:
      {{- include "schema.env" "Variables for the download of this source, as HF_TOKEN. They go before all others of the same name." | nindent 6 }}
{{- end }}

{{/* A reference that was resolved: its description. */}}
{{- define "schema.reference" -}}
description: {{ . | quote }}
type: object
properties:
  name: {type: string, description: The name of the object.}
  namespace: {type: string, description: Its namespace; empty for what belongs to the cluster.}
  scope:
    description: >-
      Where it was found: in the Namespace, in the Cluster, or Merged of both.
    type: string
    enum: [Namespace, Cluster, Merged, Unknown]
  kind: {type: string, description: The kind of the object.}
  uid: {type: string, description: The UID of the object.}
{{- end }}

{{- define "schema.conditions" -}}
description: >-
  What the operator has found, one condition for each part, and Ready for all together. The messages
  say what is wrong and what helps.
type: array
x-kubernetes-list-type: map
x-kubernetes-list-map-keys: [type]
items:
  type: object
  required: [lastTransitionTime, message, reason, status, type]
  properties:
    lastTransitionTime:
      description: When status or reason changed last.
      type: string
      format: date-time
    message:
      description: What it is about, for people.
      type: string
      maxLength: 32768
    observedGeneration:
      description: The generation of the object that the condition speaks of.
      type: integer
      format: int64
      minimum: 0
    reason:
      description: Why it is so, in one word for programs, as StorageFull.
      type: string
      minLength: 1
      maxLength: 1024
      pattern: '^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$'
    status:
      description: Whether it holds, or is Unknown.
      type: string
      enum: ["True", "False", Unknown]
    type:
      description: What the condition is about, as Ready or DownloadComplete.
      type: string
      maxLength: 316
      pattern: '^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])$'
{{- end }}

{{- define "schema.generation" -}}
description: The generation of the object that the status speaks of.
type: integer
format: int64
{{- end }}
