{{/* An AIMArtifact, and an AIMModelCache, which is the same with older words. */}}

{{- define "artifact.spec" -}}
type: object
required: [sourceUri]
x-kubernetes-validations:
  - rule: "!has(self.shards) || self.shards == 1 || !has(self.accessMode) || self.accessMode == 'ReadWriteMany'"
    message: several shards write to one volume, which takes the accessMode ReadWriteMany
    fieldPath: .shards
properties:
  sourceUri:
    description: >-
      Where the model is: hf://org/name, or hf://org/name@revision for a branch, tag or commit other
      than main; s3://bucket/prefix for images that can. It cannot be changed. Example:
      hf://openai-community/gpt2
    type: string
    minLength: 1
    pattern: '^(hf|s3)://[^ \t\r\n]+$'
    x-kubernetes-validations:
      - rule: self == oldSelf
        message: sourceUri is immutable
  modelId:
    description: >-
      The name of the model for those who use it, as org/name. It does not change what is downloaded.
    type: string
    pattern: '^[a-zA-Z0-9_-]+/[a-zA-Z0-9._-]+$'
  size:
    {{- include "schema.quantity" "How large the model is, as 15Gi. The volume is made by the headroom of the runtime config larger. Default (or 0): the source is asked, by a Job, before there is a volume." | nindent 4 }}
  storageClassName:
    description: >-
      The StorageClass of the volume. Default: storage.defaultStorageClassName of the runtime config,
      else the cluster's default class.
    type: string
  accessMode:
    description: >-
      How the volume may be mounted: ReadWriteMany by pods of several nodes, ReadWriteOnce by those of
      one node, ReadWriteOncePod by one pod. Default: the operator's, which is ReadWriteMany. The
      annotation aim.eai.amd.com/access-mode says the same where the kind lacks this field.
    type: string
    enum: [ReadWriteMany, ReadWriteOnce, ReadWriteOncePod]
  shards:
    description: >-
      How many pods share the download; each takes a part of the files to the same volume. More than 1
      takes the accessMode ReadWriteMany. Default 1. The annotation aim.eai.amd.com/shards says the
      same where the kind lacks this field.
    type: integer
    format: int32
    minimum: 1
    maximum: 1000
  resources:
    description: >-
      What the pods of the download request and may use, in place of the operator's default. The
      annotation aim.eai.amd.com/resources says the same, as JSON, where the kind lacks this field.
    type: object
    properties:
      requests:
        description: "What a node must have free, as {cpu: 500m, memory: 1Gi}."
        type: object
        additionalProperties:
          {{- include "schema.quantity" "How much of it, as 500m or 4Gi." | nindent 10 }}
      limits:
        description: "What a pod may use at most, as {memory: 4Gi}. Beyond its memory it is killed."
        type: object
        additionalProperties:
          {{- include "schema.quantity" "How much of it, as 500m or 4Gi." | nindent 10 }}
  env:
    {{- include "schema.env" "Variables for the download and the size Job. They go before those of the runtime config of the same name. Example: HF_TOKEN from a Secret, HF_ENDPOINT for a mirror, AIM_DOWNLOADER_PROTOCOL=XET,HTTP" | nindent 4 }}
  modelDownloadImage:
    description: >-
      The image that asks for the size and downloads. Default: the operator's default image.
    type: string
  imagePullSecrets:
    {{- include "schema.pull-secrets" "Secrets in the same namespace by which the image is pulled." | nindent 4 }}
  runtimeConfigName:
    description: >-
      The AIMRuntimeConfig of the namespace and the AIMClusterRuntimeConfig that count, merged, the
      namespace's first. Default: default, which need not be there; any other name must be.
    type: string
{{- end }}

{{/* The properties of a status but for `status` itself. */}}
{{- define "artifact.status" -}}
conditions:
  {{- include "schema.conditions" . | nindent 2 }}
observedGeneration:
  {{- include "schema.generation" . | nindent 2 }}
mode:
  description: >-
    Dedicated when another object owns this one, and takes it along when it goes; else Shared.
  type: string
  enum: [Dedicated, Shared]
discoveredSizeBytes:
  description: What the source said of the size of the model, in bytes.
  type: integer
  format: int64
displaySize:
  description: The size of the model for people, as 15.2 GiB.
  type: string
allocatedSize:
  {{- include "schema.quantity" "What the volume was asked for: the size, the headroom, rounded up to whole Gi." | nindent 2 }}
headroomPercent:
  description: By how many percent the volume was made larger than the model.
  type: integer
  format: int32
persistentVolumeClaim:
  description: >-
    The PersistentVolumeClaim in the same namespace that holds the model, in its top folder.
  type: string
progress:
  description: How far the download is. The pod that downloads writes it.
  type: object
  properties:
    percentage:
      description: Percent of the bytes, rounded down; 100 when all have come, and are verified.
      type: integer
      format: int32
      minimum: 0
      maximum: 100
    displayPercentage:
      description: The same for people, as 42 %, or N/A after a failure.
      type: string
    downloadedBytes:
      description: The bytes that are on the volume.
      type: integer
      format: int64
    totalBytes:
      description: The bytes of all files that are downloaded.
      type: integer
      format: int64
    bytesPerSecond:
      description: The present speed, while it downloads.
      type: integer
      format: int64
    remainingSeconds:
      description: How long it takes at the present speed, while it downloads.
      type: integer
      format: int64
download:
  description: How the download goes. The pod that downloads writes it.
  type: object
  properties:
    protocol:
      description: What brings the files, XET, HF_TRANSFER or HTTP.
      type: string
    attempt:
      description: The place of the protocol in the sequence, from 1.
      type: integer
      format: int32
    totalAttempts:
      description: How many protocols there are in the sequence.
      type: integer
      format: int32
    protocolSequence:
      description: The protocols in the order in which they are tried, as XET,HF_TRANSFER.
      type: string
    message:
      description: What happens now, or how it ended, as Downloading with XET.
      type: string
    revision:
      description: The commit of the model that is downloaded.
      type: string
lastUsed:
  description: When the model was last used.
  type: string
  format: date-time
{{- end }}
