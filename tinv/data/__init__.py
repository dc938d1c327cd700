"""What networks are trained and tested on: one LightningDataModule a data set, one file a family."""

from tinv.data.action_clips import HMDB51, UCF101
from tinv.data.brown import Brown
from tinv.data.cifar import CIFAR10, CIFAR100
from tinv.data.digits import Digits
from tinv.data.four_quadrant import FourQuadrant
from tinv.data.image_folder import ImageFolder
from tinv.data.imagenet import ImageNet
from tinv.data.mnist import MNIST, FashionMNIST
from tinv.data.moving_shapes import MovingShapes
from tinv.data.photo_patches import PhotoPatches
from tinv.data.red_green import RedGreen
from tinv.data.rook import Rook

__all__ = [
    "Brown",
    "CIFAR10",
    "CIFAR100",
    "Digits",
    "FashionMNIST",
    "FourQuadrant",
    "HMDB51",
    "ImageFolder",
    "ImageNet",
    "MNIST",
    "MovingShapes",
    "PhotoPatches",
    "RedGreen",
    "Rook",
    "UCF101",
]
