"""Images: networks by name, torchvision's presets, folders of files and CIFAR-10 as feeds of batches."""
